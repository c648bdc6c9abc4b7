"""Queries, keys or values of a linear that gives those of each head together."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows
from ..kernels.immediate import Immediate
from .registry import ROWS, as_float, define, native
from .shapes import like


def take_heads(x: Tensor, start: int, stride: int, heads: int, head: int) -> Tensor:
    """Pieces of float `[..., K]` as `[..., heads * head]`; see `numerics.take_heads`."""
    if not native(x):
        return numerics.take_heads(as_float(x), start, stride, heads, head)
    e = Immediate(x.shape[:-1])
    return e.run(_emit_take_heads(e, e.input(as_float(x)), start, stride, heads, head))


def _emit_take_heads(e: Emission, x: Rows, start: int, stride: int, heads: int, head: int) -> Rows:
    out = e.new(heads * head, torch.float32)
    fields = {"heads": heads, "column": x.column + start, "stride": stride}
    e.program.add("take_heads", [x.value], [out.value], columns=out.columns, **fields)
    return out


define(
    "take_heads",
    "(Tensor x, int start, int stride, int heads, int head) -> Tensor",
    compute=take_heads,
    definition=numerics.take_heads,
    fake=lambda x, start, stride, heads, head: like(x, *x.shape[:-1], heads * head),
    emit=_emit_take_heads,
    domains=(ROWS,),
    values=("x",),
    columns=("x",),
)
