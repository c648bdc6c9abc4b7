"""Rotary position embedding on rows of heads."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows
from ..kernels.immediate import Immediate
from .registry import ROWS, as_float, define, native
from .shapes import same_shape


def rotary(x: Tensor, cos: Tensor, sin: Tensor, heads: int, interleaved: bool) -> Tensor:
    """Heads of float `[..., heads * head]` turned by the angles of their row, `[..., turned]`; see `numerics.rotary`.

    Of `[batch, length]` rows the angles may be those of one sequence, `[1, length, turned]`.
    """
    numerics.checked_angles(x.shape[-1] // heads, cos.shape[-1])
    if not native(x, cos):
        return numerics.rotary(as_float(x), as_float(cos), as_float(sin), heads, interleaved)
    e = Immediate(x.shape[:-1])
    cos_rows, sin_rows = (e.input(as_float(t).expand(*x.shape[:-1], -1)) for t in (cos, sin))
    return e.run(_emit_rotary(e, e.input(as_float(x)), cos_rows, sin_rows, heads, interleaved))


def _emit_rotary(e: Emission, x: Rows, cos: Rows, sin: Rows, heads: int, interleaved: bool) -> Rows:
    turned = numerics.checked_angles(x.columns // heads, cos.columns)
    out = e.new(x.columns, torch.float32)
    fields = {"heads": heads, "turned": turned, "interleaved": int(interleaved), "column": x.column}
    e.program.add("rotary", [x.value, cos.value, sin.value], [out.value], columns=x.columns, **fields)
    return out


define(
    "rotary",
    "(Tensor x, Tensor cos, Tensor sin, int heads, bool interleaved) -> Tensor",
    compute=rotary,
    definition=numerics.rotary,
    fake=same_shape,
    emit=_emit_rotary,
    domains=(ROWS,),
    values=("x", "cos", "sin"),
    columns=("x",),
    periodic=("cos", "sin"),
)
