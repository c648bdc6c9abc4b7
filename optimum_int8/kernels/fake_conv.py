"""Shapes and dtypes of the operators on images; see `fake`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..numerics import Window
from . import ops_conv
from .fake import _bytes, _fake, _like

assert ops_conv.SCHEMAS  # defines the operators


def _image(x: Tensor, window: Any, channels: Any) -> tuple[Any, ...]:
    batch, height, width = x.shape[:3]
    return batch, *_size(Window(*window), height, width), channels


def _size(window: Window, height: Any, width: Any) -> tuple[Any, Any]:
    """Of a size that differs from call to call (a name, see `fx.shapes`), the expression."""
    y, x = window._replace(width=1, dilation_x=1), window._replace(height=1, dilation_y=1)
    named = [isinstance(size, str) for size in (height, width)]
    rows = f"rows of {height} under {y}" if named[0] else window.output_size(height, 0)[0]
    return rows, f"columns of {width} under {x}" if named[1] else window.output_size(0, width)[1]


@_fake("quantize_samples")
def _(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch = x.shape[0]
    return _bytes(x, *x.shape), _like(x, batch), _like(x, batch, dtype=torch.int32)


@_fake("conv")
def _(
    x: Tensor, s: Any, z: Any, packed: Any, sums: Any, weight_scale: Tensor, bias: Any, window: Any, *rest: Any
) -> Tensor:
    return _like(x, *_image(x, window, weight_scale.shape[0]))


@_fake("conv_quantized")
def _(
    x: Tensor, s: Any, z: Any, packed: Any, sums: Any, weight_scale: Tensor, bias: Any, window: Any, *rest: Any
) -> Tensor:
    return _like(x, *_image(x, window, weight_scale.shape[0]), dtype=torch.uint8)


@_fake("conv_both")
def _(
    x: Tensor, s: Any, z: Any, packed: Any, sums: Any, weight_scale: Tensor, bias: Any, window: Any, *rest: Any
) -> tuple[Tensor, Tensor]:
    shape = _image(x, window, weight_scale.shape[0])
    return _like(x, *shape), _like(x, *shape, dtype=torch.uint8)


@_fake("max_pool")
def _(x: Tensor, window: Any) -> Tensor:
    shape = _image(x, window, x.shape[-1])
    return _bytes(x, *shape) if x.dtype == torch.uint8 else _like(x, *shape, dtype=x.dtype)


def _averages(x: Tensor, window: Any) -> tuple[Any, ...]:
    return (x.shape[0], 1, 1, x.shape[-1]) if window is None else _image(x, window, x.shape[-1])


@_fake("avg_pool")
def _(x: Tensor, s: Any = None, z: Any = None, window: Any = None, padding_counts: bool = False) -> Tensor:
    return _like(x, *_averages(x, window))


@_fake("avg_pool_quantized")
def _(x: Tensor, s: Any, z: Any, window: Any, padding_counts: bool, out_scale: Any, out_zero_point: Any) -> Tensor:
    return _like(x, *_averages(x, window), dtype=torch.uint8)
