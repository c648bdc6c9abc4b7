"""The definition of the INT8 arithmetic of convolutions and pooling, in plain torch; continues `numerics`, with its rules.

Images are channels-last here: `[batch, height, width, channels]`. A convolution over a sequence is one over an image of height 1.
Padding holds the zero point, which is 0.0 to the bit, so that it needs no case of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import KernelError
from .numerics import ACTIVATIONS, affine_qparams, dequantize_affine, quantize_affine

MAX_TAPS = 518
"""Largest kernel (height by width) of a depthwise convolution: its sums stay exact in float32, 255 * 127 * 518 < 2**24."""

MAX_POSITIONS = 2**23
"""Largest window (height by width) whose sum of uint8 values int32 holds, 255 * 2**23 < 2**31."""


class Window(NamedTuple):
    """How a kernel moves over an image: its size, its steps, the padding of each side, the distance of its taps."""

    height: int
    width: int
    stride_y: int = 1
    stride_x: int = 1
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    dilation_y: int = 1
    dilation_x: int = 1

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.height * self.width

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result for an image of this size."""
        rows = height + self.top + self.bottom - self.dilation_y * (self.height - 1) - 1
        columns = width + self.left + self.right - self.dilation_x * (self.width - 1) - 1
        return rows // self.stride_y + 1, columns // self.stride_x + 1


Sizes = int | Sequence[int]
"""A number for all axes, or one for each: as torch takes them."""


def pair(value: Sizes) -> tuple[int, int]:
    """Height and width."""
    numbers = (value,) if isinstance(value, int) else value
    return numbers[0], numbers[-1]


def pool_window(
    kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes = 1, ceil_mode: bool = False, axes: int = 2
) -> Window | None:
    """The window of torch's pooling over one axis (an image of height 1) or two.

    `ceil_mode` is as much more padding behind as one step leaves over; None where torch would drop a last window that lies in the padding,
    which depends on the size of the image.
    """
    kernel, stride, padding, dilation = (pair(v) for v in (kernel, stride, padding, dilation))
    if axes == 1:
        kernel, stride, padding = (1, kernel[1]), (1, stride[1]), (0, padding[1])
    reach = [d * (k - 1) + 1 - p for k, d, p in zip(kernel, dilation, padding, strict=True)]
    more = [s - 1 if ceil_mode else 0 for s in stride]
    if any(m and m >= r for m, r in zip(more, reach, strict=True)):
        return None
    behind = (padding[0] + more[0], padding[1] + more[1])
    return Window(*kernel, *stride, *padding, *behind, *dilation)


def averaged_window(window: Sequence[int] | None, height: int, width: int) -> Window:
    """The window of an average over an image of this size; None is the whole image.

    Raises:
        KernelError: its sum can overflow int32.
    """
    found = Window(height, width) if window is None else Window(*window)
    if found.taps > MAX_POSITIONS:
        raise KernelError(
            f"an average over {found.taps} positions can overflow int32; expected at most {MAX_POSITIONS}"
        )
    return found


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """`max(x, 0) + slope * min(x, 0)`, one of the two being zero; NaN becomes 0."""
    return torch.where(x > 0.0, x, 0.0) + torch.where(x < 0.0, x, 0.0) * torch.tensor(slope, dtype=torch.float32)


def hardswish(x: Tensor) -> Tensor:
    """`x * clamp(x / 6 + 1/2, 0, 1)`, the sixth as a factor."""
    return x * (x * torch.tensor(1.0 / 6.0, dtype=torch.float32) + 0.5).clamp(0.0, 1.0)


CONV_ACTIVATIONS = (*ACTIVATIONS, "leaky_relu", "hardswish")
"""What a convolution can apply; `leaky_relu` with a slope."""


def activate(x: Tensor, name: str, slope: float = 0.0) -> Tensor:
    """One of `CONV_ACTIVATIONS`."""
    if name == "leaky_relu":
        return leaky_relu(x, slope)
    return hardswish(x) if name == "hardswish" else ACTIVATIONS[name](x)


def quantize_samples(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Dynamic quantization of images: one range per sample (the first axis), over all its values.

    Returns `(q, scale, zero_point)`: uint8 of x's shape, float32 and int32 `[batch]`.
    """
    x = x.to(torch.float32)
    flat = x.flatten(1)
    scale, zero_point = affine_qparams(flat.amin(1), flat.amax(1))
    shape = (-1, *[1] * (x.dim() - 1))
    return quantize_affine(x, scale.view(shape), zero_point.view(shape)), scale, zero_point


def conv_int32(x: Tensor, zero_point: int | Tensor, weight: Tensor, window: Window, groups: int = 1) -> Tensor:
    """Exact sums of `(x - zero_point) * weight`: uint8 `[batch, height, width, in]` by int8 `[out, in / groups, kernel height, kernel
    width]` to int32 `[batch, height', width', out]`. Computed in float64, as `numerics.matmul_int32`."""
    zero_point = torch.as_tensor(zero_point)
    zero_point = zero_point.view(-1, 1, 1, 1) if zero_point.dim() else zero_point
    centred = (x.to(torch.float64) - zero_point.to(torch.float64)).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(centred, (window.left, window.right, window.top, window.bottom))
    strides, dilations = (window.stride_y, window.stride_x), (window.dilation_y, window.dilation_x)
    y = torch.nn.functional.conv2d(padded, weight.to(torch.float64), None, strides, 0, dilations, groups)
    return y.permute(0, 2, 3, 1).to(torch.int32)


def conv(
    x: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    window: Window,
    groups: int = 1,
    activation: str = "none",
    slope: float = 0.0,
    residual: Tensor | None = None,
    final: str = "none",
    residual_scale: Tensor | None = None,
    residual_zero_point: Tensor | None = None,
) -> Tensor:
    """`final(activation(sums * (scale * weight_scale) + bias) + residual)` in float32, `[batch, height', width', out]`.

    Args:
        x: uint8 `[batch, height, width, in]`.
        scale, zero_point: of x; scalars (static), or one per sample, `[batch]` (dynamic).
        weight: int8 `[out, in / groups, kernel height, kernel width]`.
        weight_scale: float32 `[out]`.
        bias: float32 `[out]`.
        activation, final: of `CONV_ACTIVATIONS`; `slope` is that of a leaky ReLU, for both.
        residual: float32 of the result's shape, or uint8 on the grid `residual_scale`, `residual_zero_point` (scalars).
    """
    scale = torch.as_tensor(scale)
    scale = scale.view(-1, 1, 1, 1) if scale.dim() else scale
    y = conv_int32(x, zero_point, weight, window, groups).to(torch.float32)
    y = y * (scale.to(torch.float32) * weight_scale)
    y = activate(y if bias is None else y + bias, activation, slope)
    if residual is not None and residual_scale is not None and residual_zero_point is not None:
        residual = dequantize_affine(residual, residual_scale, residual_zero_point)
    return activate(y if residual is None else y + residual, final, slope)


def max_pool(x: Tensor, window: Window) -> Tensor:
    """Largest value of each window, of uint8 or float32 `[batch, height, width, channels]`. Padding never wins, nor does NaN.

    Of uint8 the grid stays. Quantization is monotone, so that this is the quantized maximum of the float values, to the bit.
    """
    low = -torch.inf if x.is_floating_point() else 0.0
    wide = x.permute(0, 3, 1, 2).to(torch.float32).nan_to_num(nan=low, posinf=torch.inf, neginf=-torch.inf)
    padded = torch.nn.functional.pad(wide, (window.left, window.right, window.top, window.bottom), value=low)
    strides, dilations = (window.stride_y, window.stride_x), (window.dilation_y, window.dilation_x)
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
        x: uint8 `[batch, height, width, channels]` on the grid `scale`, `zero_point` (scalars), or float32 without a grid.
        window: a `Window` without dilation; None takes the whole image.
        padding_counts: whether the count holds padding, as much behind the image as in front of it; what lies beyond never counts.
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
    starts, padding = torch.arange(windows) * stride - before, before if padding_counts else 0
    return (starts + kernel).clamp(max=size + padding) - starts.clamp(min=-padding)


def _sums_in_order(x: Tensor, w: Window, down: int, across: int) -> Tensor:
    padded = torch.nn.functional.pad(x, (0, 0, w.left, w.right, w.top, w.bottom))
    sums = torch.zeros(x.shape[0], down, across, x.shape[3])
    for i in range(w.height):
        for j in range(w.width):
            sums = sums + padded[:, i :: w.stride_y, j :: w.stride_x][:, :down, :across]
    return sums


__all__ = [
    "CONV_ACTIVATIONS",
    "MAX_POSITIONS",
    "MAX_TAPS",
    "Window",
    "activate",
    "averaged_window",
    "avg_pool",
    "conv",
    "conv_int32",
    "max_pool",
    "pair",
    "pool_window",
    "quantize_samples",
]
