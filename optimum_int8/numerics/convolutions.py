"""Convolutions. Images are channels-last: `[batch, height, width, channels]`; one over a sequence is one over an image of height 1.

Padding holds the zero point, which is 0.0 to the bit, so that it needs no case of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .activations import activate
from .quantization import dequantize_affine
from .windows import Window

MAX_TAPS = 518
"""Largest kernel (height by width) of a depthwise convolution: its sums stay exact in float32, 255 * 127 * 518 < 2**24."""


def conv_int32(x: Tensor, zero_point: int | Tensor, weight: Tensor, window: Window, groups: int = 1) -> Tensor:
    """Exact sums of `(x - zero_point) * weight`: uint8 `[batch, height, width, in]` by int8 `[out, in / groups, kernel height, kernel
    width]` to int32 `[batch, height', width', out]`. Computed in float64, as `matmul_int32`."""
    zero_point = torch.as_tensor(zero_point)
    zero_point = zero_point.view(-1, 1, 1, 1) if zero_point.dim() else zero_point
    centred = (x.to(torch.float64) - zero_point.to(torch.float64)).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(centred, (window.left, window.right, window.top, window.bottom))
    strides = (window.stride_y, window.stride_x)
    dilations = (window.dilation_y, window.dilation_x)
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
        residual: float32 of the result's shape, or uint8 with `residual_scale` and `residual_zero_point` (scalars).
    """
    scale = torch.as_tensor(scale)
    scale = scale.view(-1, 1, 1, 1) if scale.dim() else scale
    y = conv_int32(x, zero_point, weight, window, groups).to(torch.float32)
    y = y * (scale.to(torch.float32) * weight_scale)
    y = activate(y if bias is None else y + bias, activation, slope)
    if residual is not None and residual_scale is not None and residual_zero_point is not None:
        residual = dequantize_affine(residual, residual_scale, residual_zero_point)
    return activate(y if residual is None else y + residual, final, slope)
