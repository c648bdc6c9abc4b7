"""Norms of each head of a row: of queries and keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows
from ..kernels.immediate import Immediate
from .registry import ROWS, as_float, define, native
from .shapes import same_shape


def head_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, heads: int, kind: str, eps: float) -> Tensor:
    """Layer norm or RMS norm (`kind` is a name of `program.NORMS` but `none`) of each head of float `[..., heads * head]`; see `numerics`."""
    if not native(x):
        return numerics.head_norm(as_float(x), weight, bias, heads, kind, eps)
    e = Immediate(x.shape[:-1])
    return e.run(_emit_head_norm(e, e.input(as_float(x)), weight, bias, heads, kind, eps))


def _emit_head_norm(
    e: Emission, x: Rows, weight: Tensor | None, bias: Tensor | None, heads: int, kind: str, eps: float
) -> Rows:
    out = e.new(x.columns, torch.float32)
    fields: dict[str, Any] = {name: t for name, t in (("weight", weight), ("bias", bias)) if t is not None}
    fields |= {"heads": heads, "kind": kind, "epsilon": eps, "column": x.column}
    e.program.add("head_norm", [x.value], [out.value], columns=x.columns, **fields)
    return out


define(
    "head_norm",
    "(Tensor x, Tensor? weight, Tensor? bias, int heads, str kind, float eps) -> Tensor",
    compute=head_norm,
    definition=numerics.head_norm,
    fake=same_shape,
    emit=_emit_head_norm,
    domains=(ROWS,),
    values=("x",),
    columns=("x",),
)
