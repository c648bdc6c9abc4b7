"""What the operators on images append to a spatial program; see `emit`. Each sets `size` of the emission, that of its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..numerics import Window, averaged_window
from . import program
from .emit import Emission, Rows, _out_grid


class ImageEmission(Emission, Protocol):
    """An `Emission` that knows how large its next result is."""

    size: tuple[int, int]


def quantize_samples(e: ImageEmission, x: Rows) -> tuple[Rows, Rows, Rows]:
    """uint8, and the scale and the zero point of the image."""
    e.size = x.size
    out = e.new(x.columns, torch.uint8)
    e.size = (1, 1)
    grid = e.new(1, torch.float32), e.new(1, torch.int32)
    e.program.add("quantize_sample", [x.value], [r.value for r in (out, *grid)], columns=x.columns)
    return out, *grid


def _conv(
    e: ImageEmission,
    outs: Sequence[Rows | None],
    x: Rows,
    scale: Tensor | Rows,
    zero_point: Tensor | Rows,
    packed: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    window: Sequence[int],
    groups: int,
    activation: str,
    slope: float,
    residual: Rows | None,
    final: str,
    residual_scale: Tensor | None = None,
    residual_zero_point: Tensor | None = None,
    **fields: object,
) -> None:
    inputs, scales = [x.value, -1, -1, -1 if residual is None else residual.value], [0.0, 0.0]
    if isinstance(scale, Rows) and isinstance(zero_point, Rows):
        inputs[1:3] = scale.value, zero_point.value
    else:
        scales[0], fields["input_zero_point"] = float(scale), int(zero_point)  # type: ignore[arg-type]
    if residual_scale is not None and residual_zero_point is not None:
        scales[1], fields["residual_zero_point"] = float(residual_scale), int(residual_zero_point)
    fields["input_scale"] = scales
    if bias is not None:
        fields["bias"] = bias
    w = Window(*window)
    fields |= {"weight": packed, "weight_sum": weight_sum, "weight_scale": weight_scale, "activation": activation}
    fields |= {"columns": weight_scale.shape[0], "reduction": w.taps * (x.columns // groups), "groups": groups}
    fields["window"] = program.window(w, *x.size, packed.dtype == torch.float32, final)
    outputs = [-1 if r is None else r.value for r in outs]
    e.program.add("conv", inputs, outputs, parameter=slope, **fields)


def conv(e, x, scale, zero_point, packed, weight_sum, weight_scale, bias, window, groups, *epilogue) -> Rows:  # type: ignore[no-untyped-def]
    """float32."""
    defaults = ("none", 0.0, None, "none")  # of the activations and the residual
    e.size = Window(*window).output_size(*x.size)
    out = e.new(weight_scale.shape[0], torch.float32)
    weight = packed, weight_sum, weight_scale, bias, window, groups
    _conv(e, (out, None), x, scale, zero_point, *weight, *epilogue, *defaults[len(epilogue) :])
    return out


def conv_quantized(e, x, scale, zero_point, packed, weight_sum, weight_scale, bias, window, groups, *rest) -> Rows:  # type: ignore[no-untyped-def]
    """uint8 on the grid after the epilogue's arguments; the residual's grid is last."""
    epilogue, (out_scale, out_zero_point) = (*rest[:4], *rest[6:]), rest[4:6]
    e.size = Window(*window).output_size(*x.size)
    out = e.new(weight_scale.shape[0], torch.uint8)
    weight = packed, weight_sum, weight_scale, bias, window, groups
    _conv(e, (None, out), x, scale, zero_point, *weight, *epilogue, **_out_grid(out_scale, out_zero_point))
    return out


def conv_both(  # type: ignore[no-untyped-def]
    e, x, scale, zero_point, packed, weight_sum, weight_scale, bias, window, groups, *rest
) -> tuple[Rows, Rows]:
    """float32, and uint8 as `conv_quantized`."""
    epilogue, (out_scale, out_zero_point) = (*rest[:4], *rest[6:]), rest[4:6]
    e.size = Window(*window).output_size(*x.size)
    out = e.new(weight_scale.shape[0], torch.float32), e.new(weight_scale.shape[0], torch.uint8)
    weight = packed, weight_sum, weight_scale, bias, window, groups
    _conv(e, out, x, scale, zero_point, *weight, *epilogue, **_out_grid(out_scale, out_zero_point))
    return out


def max_pool(e: ImageEmission, x: Rows, window: Sequence[int]) -> Rows:
    """uint8 on x's grid, or float32, as x is."""
    w = Window(*window)
    e.size = w.output_size(*x.size)
    out, shape = e.new(x.columns, x.dtype), program.window(w, *x.size)
    shape.floats = x.dtype == torch.float32
    e.program.add("max_pool", [x.value], [out.value], columns=x.columns, window=shape)
    return out


def _avg_pool(
    e: ImageEmission,
    dtype: torch.dtype,
    x: Rows,
    scale: Tensor | None,
    zero_point: Tensor | None,
    window: Sequence[int] | None,
    padding_counts: bool,
    **fields: object,
) -> Rows:
    w = averaged_window(window, *x.size)
    e.size = w.output_size(*x.size)
    out, shape = e.new(x.columns, dtype), program.window(w, *x.size)
    shape.floats, shape.padding_counts = x.dtype == torch.float32, padding_counts
    if scale is not None and zero_point is not None:
        fields |= {"input_scale": [float(scale)], "input_zero_point": int(zero_point)}
    outputs = [out.value, -1] if dtype == torch.float32 else [-1, out.value]
    e.program.add("avg_pool", [x.value], outputs, columns=x.columns, window=shape, **fields)
    return out


def avg_pool(e, x, scale=None, zero_point=None, window=None, padding_counts=False) -> Rows:  # type: ignore[no-untyped-def]
    """float32."""
    return _avg_pool(e, torch.float32, x, scale, zero_point, window, padding_counts)


def avg_pool_quantized(e, x, scale, zero_point, window, padding_counts, out_scale, out_zero_point) -> Rows:  # type: ignore[no-untyped-def]
    """uint8 on the grid of the last two arguments."""
    grid = _out_grid(out_scale, out_zero_point)
    return _avg_pool(e, torch.uint8, x, scale, zero_point, window, padding_counts, **grid)
