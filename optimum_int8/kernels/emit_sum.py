"""What the operators of `ops_sum` append to a program; see `emit`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .emit import Emission, Rows, _out_grid


def _add(e: Emission, out: Rows, inputs: list[Rows], scale: Tensor, zero_point: Tensor, **fields: object) -> None:
    fields = {"input_scale": [float(scale)], "input_zero_point": int(zero_point)} | fields
    e.program.add("add", [x.value for x in inputs], [out.value], columns=inputs[0].columns, **fields)


def _both(scale: Tensor, y_scale: Tensor, y_zero_point: Tensor) -> dict[str, object]:
    return {"input_scale": [float(scale), float(y_scale)], "parameter": float(y_zero_point)}


def dequantize(e: Emission, q: Rows, scale: Tensor, zero_point: Tensor) -> Rows:
    """float32."""
    out = e.new(q.columns, torch.float32)
    _add(e, out, [q], scale, zero_point)
    return out


def add(
    e: Emission, x: Rows, scale: Tensor, zero_point: Tensor, y: Rows, y_scale: Tensor, y_zero_point: Tensor
) -> Rows:
    """float32."""
    out = e.new(x.columns, torch.float32)
    _add(e, out, [x, y], scale, zero_point, **_both(scale, y_scale, y_zero_point))
    return out


def add_quantized(
    e: Emission,
    x: Rows,
    scale: Tensor,
    zero_point: Tensor,
    y: Rows,
    y_scale: Tensor,
    y_zero_point: Tensor,
    output_scale: Tensor,
    output_zero_point: Tensor,
) -> Rows:
    """uint8."""
    out = e.new(x.columns, torch.uint8)
    fields = _both(scale, y_scale, y_zero_point) | _out_grid(output_scale, output_zero_point)
    _add(e, out, [x, y], scale, zero_point, **fields)
    return out


def cat_quantized(
    e: Emission,
    parts: Sequence[Rows],
    scales: Sequence[Tensor],
    zero_points: Sequence[Tensor],
    output_scale: Tensor,
    output_zero_point: Tensor,
) -> Rows:
    """uint8, an instruction for each part."""
    out, column = e.new(sum(x.columns for x in parts), torch.uint8), 0
    for x, scale, zero_point in zip(parts, scales, zero_points, strict=True):
        fields = _out_grid(output_scale, output_zero_point)
        _add(e, out, [x], scale, zero_point, column=[0, 0, column], **fields)
        column += x.columns
    return out
