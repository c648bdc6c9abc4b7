"""Largest and mean values of windows of channels-last images, `[batch, height, width, channels]`.

`window` is a `numerics.Window` as a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels import program
from ..kernels.emission import ImageEmission, Rows, output_fields
from ..kernels.immediate import ImmediateImages
from ..numerics import Window
from .registry import IMAGES, define, native
from .roles import POOLING, Quantizing
from .shapes import byte_rows, image_shape, like


def _has_positions(x: Tensor, window: Window) -> bool:
    """Whether the native library can move the window over an image."""
    return native(x) and min(window.output_size(*x.shape[1:3])) > 0


def max_pool(x: Tensor, window: Sequence[int]) -> Tensor:
    """uint8 or float32 `[batch, height, width, channels]` to the largest of each window; see `numerics.max_pool`."""
    if not _has_positions(x, Window(*window)):
        return numerics.max_pool(x, Window(*window))
    e = ImmediateImages(x.shape)
    x = x.to(torch.float32) if x.is_floating_point() else x
    return e.run_images(_emit_max_pool(e, e.image(x), window))


def _emit_max_pool(e: ImageEmission, x: Rows, window: Sequence[int]) -> Rows:
    """uint8 with x's scale and zero point, or float32, as x is."""
    moved = Window(*window)
    e.size = moved.output_size(*x.size)
    out = e.new(x.columns, x.dtype)
    shape = program.window(moved, *x.size)
    floats = int(x.dtype == torch.float32)
    e.program.add("max_pool", [x.value], [out.value], columns=x.columns, floats=floats, window=shape)
    return out


def _fake_max_pool(x: Tensor, window: Any) -> Tensor:
    shape = image_shape(x, window, x.shape[-1])
    return byte_rows(x, *shape) if x.dtype == torch.uint8 else like(x, *shape, dtype=x.dtype)


define(
    "max_pool",
    "(Tensor x, int[] window) -> Tensor",
    compute=max_pool,
    definition=lambda x, window: numerics.max_pool(x, Window(*window)),
    fake=_fake_max_pool,
    emit=_emit_max_pool,
    domains=(IMAGES,),
    values=("x",),
    role=POOLING,
)


def avg_pool(
    x: Tensor,
    scale: Tensor | None,
    zero_point: Tensor | None,
    window: Sequence[int] | None = None,
    padding_counts: bool = False,
) -> Tensor:
    """uint8 with its scale and zero point, or float32, `[batch, height, width, channels]` to the mean of each window (None: the whole
    image), float32; see `numerics.avg_pool`."""
    if not _has_positions(x, numerics.averaged_window(window, *x.shape[1:3])):
        return numerics.avg_pool(x, scale, zero_point, window, padding_counts)
    e = ImmediateImages(x.shape)
    image = e.image(x.to(torch.float32) if scale is None else x)
    return e.run_images(_emit_avg_pool(e, image, scale, zero_point, window, padding_counts))


def _append(
    e: ImageEmission,
    dtype: torch.dtype,
    x: Rows,
    scale: Tensor | None,
    zero_point: Tensor | None,
    window: Sequence[int] | None,
    padding_counts: bool,
    **fields: object,
) -> Rows:
    moved = numerics.averaged_window(window, *x.size)
    e.size = moved.output_size(*x.size)
    out = e.new(x.columns, dtype)
    shape = program.window(moved, *x.size)
    fields |= {"floats": int(x.dtype == torch.float32), "padding_counts": int(padding_counts)}
    if scale is not None and zero_point is not None:
        fields |= {"input_scale": float(scale), "input_zero_point": int(zero_point)}
    outputs = [out.value, -1] if dtype == torch.float32 else [-1, out.value]
    e.program.add("avg_pool", [x.value], outputs, columns=x.columns, window=shape, **fields)
    return out


def _emit_avg_pool(e: ImageEmission, x: Rows, scale=None, zero_point=None, window=None, padding_counts=False) -> Rows:  # type: ignore[no-untyped-def]
    return _append(e, torch.float32, x, scale, zero_point, window, padding_counts)


def _fake_avg_pool(
    x: Tensor, scale: Any = None, zero_point: Any = None, window: Any = None, *rest: Any, **named: Any
) -> Tensor:
    return like(x, *_averages(x, window))


def _averages(x: Tensor, window: Any) -> tuple[Any, ...]:
    return (x.shape[0], 1, 1, x.shape[-1]) if window is None else image_shape(x, window, x.shape[-1])


define(
    "avg_pool",
    "(Tensor x, Tensor? scale, Tensor? zero_point, int[]? window=None, bool padding_counts=False) -> Tensor",
    compute=avg_pool,
    definition=numerics.avg_pool,
    fake=_fake_avg_pool,
    emit=_emit_avg_pool,
    domains=(IMAGES,),
    values=("x",),
    role=POOLING,
)


def avg_pool_quantized(*pool_arguments: Any) -> Tensor:
    """`avg_pool`, then `quantize` with the scale and zero point that come last."""
    *core, output_scale, output_zero_point = pool_arguments
    return numerics.quantize_affine(avg_pool(*core), output_scale, output_zero_point)


def _define_avg_pool_quantized(*pool_arguments: Any) -> Tensor:
    *core, output_scale, output_zero_point = pool_arguments
    return numerics.quantize_affine(numerics.avg_pool(*core), output_scale, output_zero_point)


def _emit_avg_pool_quantized(  # type: ignore[no-untyped-def]
    e: ImageEmission, x: Rows, scale, zero_point, window, padding_counts, output_scale, output_zero_point
) -> Rows:
    fields = output_fields(output_scale, output_zero_point)
    return _append(e, torch.uint8, x, scale, zero_point, window, padding_counts, **fields)


def _fake_avg_pool_quantized(x: Tensor, scale: Any, zero_point: Any, window: Any, *rest: Any, **named: Any) -> Tensor:
    return like(x, *_averages(x, window), dtype=torch.uint8)


define(
    "avg_pool_quantized",
    "(Tensor x, Tensor? scale, Tensor? zero_point, int[]? window, bool padding_counts, Tensor output_scale, "
    "Tensor output_zero_point) -> Tensor",
    compute=avg_pool_quantized,
    definition=_define_avg_pool_quantized,
    fake=_fake_avg_pool_quantized,
    emit=_emit_avg_pool_quantized,
    domains=(IMAGES,),
    values=("x",),
    form=Quantizing("avg_pool"),
)
