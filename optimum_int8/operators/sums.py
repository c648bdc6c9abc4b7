"""Sums and concatenations of INT8 values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows, output_fields
from ..kernels.immediate import Immediate
from .registry import IMAGES, ROWS, define, native
from .roles import Quantizing
from .shapes import byte_rows, like

_TERMS = "Tensor x, Tensor scale, Tensor zero_point, Tensor y, Tensor y_scale, Tensor y_zero_point"
_OUTPUT = "Tensor output_scale, Tensor output_zero_point"


def _addable(x: Tensor, y: Tensor) -> bool:
    """Whether a program can add the two: it has no broadcasting."""
    return native(x) and x.shape == y.shape and x.dim() > 0


def _sum_shape(x: Tensor, y: Tensor) -> Any:
    """Passes know sizes by name, and add equal shapes alone."""
    return x.shape if tuple(x.shape) == tuple(y.shape) else torch.broadcast_shapes(x.shape, y.shape)


def add(x: Tensor, scale: Tensor, zero_point: Tensor, y: Tensor, y_scale: Tensor, y_zero_point: Tensor) -> Tensor:
    """Two uint8 values to their float32 sum; see `numerics.add`."""
    if not _addable(x, y):
        return numerics.add(x, scale, zero_point, y, y_scale, y_zero_point)
    e = Immediate(x.shape[:-1])
    return e.run(_emit_add(e, e.input(x), scale, zero_point, e.input(y), y_scale, y_zero_point))


def _append(e: Emission, out: Rows, x: Rows, scale, zero_point, y: Rows, y_scale, y_zero_point, **fields: Any) -> Rows:  # type: ignore[no-untyped-def]
    fields |= {"input_scale": float(scale), "input_zero_point": int(zero_point)}
    fields |= {"other_scale": float(y_scale), "other_zero_point": int(y_zero_point)}
    e.program.add("add", [x.value, y.value], [out.value], columns=x.columns, **fields)
    return out


def _emit_add(e: Emission, x: Rows, scale, zero_point, y: Rows, y_scale, y_zero_point) -> Rows:  # type: ignore[no-untyped-def]
    return _append(e, e.new(x.columns, torch.float32), x, scale, zero_point, y, y_scale, y_zero_point)


define(
    "add",
    f"({_TERMS}) -> Tensor",
    compute=add,
    definition=numerics.add,
    fake=lambda x, scale, zero_point, y, y_scale, y_zero_point: like(x, *_sum_shape(x, y)),
    emit=_emit_add,
    domains=(ROWS, IMAGES),
    values=("x", "y"),
    elementwise=True,
)


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
    """`add`, rounded to uint8; see `numerics.add_quantized`."""
    terms = (y_scale, y_zero_point, output_scale, output_zero_point)
    if not _addable(x, y):
        return numerics.add_quantized(x, scale, zero_point, y, *terms)
    e = Immediate(x.shape[:-1])
    return e.run(_emit_add_quantized(e, e.input(x), scale, zero_point, e.input(y), *terms))


def _emit_add_quantized(  # type: ignore[no-untyped-def]
    e: Emission, x: Rows, scale, zero_point, y: Rows, y_scale, y_zero_point, output_scale, output_zero_point
) -> Rows:
    out = e.new(x.columns, torch.uint8)
    fields = output_fields(output_scale, output_zero_point)
    return _append(e, out, x, scale, zero_point, y, y_scale, y_zero_point, **fields)


define(
    "add_quantized",
    f"({_TERMS}, {_OUTPUT}) -> Tensor",
    compute=add_quantized,
    definition=numerics.add_quantized,
    fake=lambda x, scale, zero_point, y, *rest, **named: byte_rows(x, *_sum_shape(x, y)),
    emit=_emit_add_quantized,
    domains=(ROWS, IMAGES),
    values=("x", "y"),
    elementwise=True,
    form=Quantizing("add"),
)


def cat_quantized(
    parts: Sequence[Tensor],
    scales: Sequence[Tensor],
    zero_points: Sequence[Tensor],
    output_scale: Tensor,
    output_zero_point: Tensor,
) -> Tensor:
    """uint8 parts, along the last axis, to uint8 of one scale and zero point; see `numerics.cat_quantized`."""
    if not native(*parts):
        return numerics.cat_quantized(parts, scales, zero_points, output_scale, output_zero_point)
    e = Immediate(parts[0].shape[:-1])
    rows = [e.input(part) for part in parts]
    return e.run(_emit_cat_quantized(e, rows, scales, zero_points, output_scale, output_zero_point))


def _emit_cat_quantized(  # type: ignore[no-untyped-def]
    e: Emission, parts: Sequence[Rows], scales, zero_points, output_scale, output_zero_point
) -> Rows:
    """An instruction for each part."""
    out = e.new(sum(x.columns for x in parts), torch.uint8)
    column = 0
    for x, scale, zero_point in zip(parts, scales, zero_points, strict=True):
        fields = {"input_scale": float(scale), "input_zero_point": int(zero_point), "output_column": column}
        fields |= output_fields(output_scale, output_zero_point)
        e.program.add("add", [x.value], [out.value], columns=x.columns, **fields)
        column += x.columns
    return out


def _fake_cat_quantized(parts: Sequence[Tensor], *rest: Any, **named: Any) -> Tensor:
    return byte_rows(parts[0], *parts[0].shape[:-1], sum(x.shape[-1] for x in parts))


define(
    "cat_quantized",
    f"(Tensor[] parts, Tensor[] scales, Tensor[] zero_points, {_OUTPUT}) -> Tensor",
    compute=cat_quantized,
    definition=numerics.cat_quantized,
    fake=_fake_cat_quantized,
    emit=_emit_cat_quantized,
    domains=(ROWS, IMAGES),
    values=("parts",),
)
