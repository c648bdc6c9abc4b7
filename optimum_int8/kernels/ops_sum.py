"""The operators on sums and concatenations of INT8 values; see `numerics.sums`. Models call `dequantize` and `add`, fine-grained FX the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .. import numerics
from . import emit_sum, ops
from .immediate import Immediate

_GRID = "Tensor scale, Tensor zero_point"
_ADD = f"Tensor x, {_GRID}, Tensor y, Tensor y_scale, Tensor y_zero_point"
_OUT = "Tensor output_scale, Tensor output_zero_point"
SCHEMAS = {
    "dequantize": f"(Tensor q, {_GRID}) -> Tensor",
    "add": f"({_ADD}) -> Tensor",
    "add_quantized": f"({_ADD}, {_OUT}) -> Tensor",
    "cat_quantized": f"(Tensor[] parts, Tensor[] scales, Tensor[] zero_points, {_OUT}) -> Tensor",
}

for _name, _schema in SCHEMAS.items():
    ops._definitions.define(_name + _schema)
ops.SCHEMAS.update(SCHEMAS)


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """uint8 `[..., K]` on one grid to float32; see `numerics.dequantize_affine`."""
    if not ops._native(q) or not q.dim():
        return numerics.dequantize_affine(q, scale, zero_point)
    e = Immediate(q.shape[:-1])
    return e.run(emit_sum.dequantize(e, e.input(q), scale, zero_point))  # type: ignore[arg-type]


def add(x: Tensor, scale: Tensor, zero_point: Tensor, y: Tensor, y_scale: Tensor, y_zero_point: Tensor) -> Tensor:
    """See `numerics.add`."""
    if not ops._native(x) or x.shape != y.shape or not x.dim():
        return numerics.add(x, scale, zero_point, y, y_scale, y_zero_point)
    e = Immediate(x.shape[:-1])
    return e.run(emit_sum.add(e, e.input(x), scale, zero_point, e.input(y), y_scale, y_zero_point))  # type: ignore[arg-type]


def add_quantized(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    y: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    output_scale: Tensor,
    output_zero_point: Tensor,
) -> Tensor:
    """See `numerics.add_quantized`."""
    grids = (y_scale, y_zero_point, output_scale, output_zero_point)
    if not ops._native(x) or x.shape != y.shape or not x.dim():
        return numerics.add_quantized(x, scale, zero_point, y, *grids)
    e = Immediate(x.shape[:-1])
    return e.run(emit_sum.add_quantized(e, e.input(x), scale, zero_point, e.input(y), *grids))  # type: ignore[arg-type]


def cat_quantized(
    parts: Sequence[Tensor],
    scales: Sequence[Tensor],
    zero_points: Sequence[Tensor],
    output_scale: Tensor,
    output_zero_point: Tensor,
) -> Tensor:
    """See `numerics.cat_quantized`."""
    if not all(map(ops._native, parts)):
        return numerics.cat_quantized(parts, scales, zero_points, output_scale, output_zero_point)
    e = Immediate(parts[0].shape[:-1])
    rows = [e.input(part) for part in parts]
    return e.run(emit_sum.cat_quantized(e, rows, scales, zero_points, output_scale, output_zero_point))  # type: ignore[arg-type]


for _name in SCHEMAS:
    ops._definitions.impl(_name, globals()[_name], "CPU")
