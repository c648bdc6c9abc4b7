"""Largest and mean values of windows of images `[batch, height, width, channels]`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .windows import Window, averaged_window


def max_pool(x: Tensor, window: Window) -> Tensor:
    """Largest value of each window, of uint8 or float32 `[batch, height, width, channels]`. Padding never wins, nor does NaN.

    uint8 keeps its scale and zero point. Quantization is monotone, so that this is the quantized maximum of the float values, to the bit.
    """
    low = -torch.inf if x.is_floating_point() else 0.0
    wide = x.permute(0, 3, 1, 2).to(torch.float32).nan_to_num(nan=low, posinf=torch.inf, neginf=-torch.inf)
    padded = torch.nn.functional.pad(wide, (window.left, window.right, window.top, window.bottom), value=low)
    strides = (window.stride_y, window.stride_x)
    dilations = (window.dilation_y, window.dilation_x)
    y = torch.nn.functional.max_pool2d(padded, (window.height, window.width), strides, 0, dilations)
    return y.permute(0, 2, 3, 1).to(x.dtype)


def avg_pool(
    x: Tensor,
    scale: Tensor | None = None,
    zero_point: Tensor | None = None,
    window: Sequence[int] | None = None,
    padding_counts: bool = False,
) -> Tensor:
    """Mean of each window, float32 `[batch, height', width', channels]`.

    Of uint8 `sum(x - zero_point) * (scale * (1 / count))`; of float32 the sum, row by row of the window from its first position on, divided
    by the count: `torch.nn.functional.avg_pool2d` to the bit.

    Args:
        x: uint8 `[batch, height, width, channels]` with `scale` and `zero_point` (scalars), or float32 without them.
        window: a `Window` without dilation; None takes the whole image.
        padding_counts: whether the count holds padding, as much behind the image as in front of it; positions beyond it never count.
    """
    w = averaged_window(window, *x.shape[1:3])
    down, across = w.output_size(*x.shape[1:3])
    rows = _positions(x.shape[1], w.height, w.stride_y, w.top, down, padding_counts)
    columns = _positions(x.shape[2], w.width, w.stride_x, w.left, across, padding_counts)
    count = (rows.unsqueeze(1) * columns).to(torch.float32).unsqueeze(-1)
    if scale is None or zero_point is None:
        return _sums_in_order(x.to(torch.float32), w, down, across) / count
    centred = (x.to(torch.float64) - zero_point.to(torch.float64)).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(centred, (w.left, w.right, w.top, w.bottom))
    strides = (w.stride_y, w.stride_x)
    sums = torch.nn.functional.avg_pool2d(padded, (w.height, w.width), strides, divisor_override=1)
    sums = sums.permute(0, 2, 3, 1).to(torch.int32).to(torch.float32)
    return sums * (scale.to(torch.float32) * (1.0 / count))


def _positions(size: int, kernel: int, stride: int, before: int, windows: int, padding_counts: bool) -> Tensor:
    """How many positions of each window count, along one axis."""
    starts = torch.arange(windows) * stride - before
    padding = before if padding_counts else 0
    return (starts + kernel).clamp(max=size + padding) - starts.clamp(min=-padding)


def _sums_in_order(x: Tensor, w: Window, down: int, across: int) -> Tensor:
    padded = torch.nn.functional.pad(x, (0, 0, w.left, w.right, w.top, w.bottom))
    sums = torch.zeros(x.shape[0], down, across, x.shape[3])
    for i in range(w.height):
        for j in range(w.width):
            sums = sums + padded[:, i :: w.stride_y, j :: w.stride_x][:, :down, :across]
    return sums
