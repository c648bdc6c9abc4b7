"""How INT8 modules quantize what they read: with the parameters of calibration, or measured on the way."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics


def quantize_input(
    x: Tensor, scale: Tensor | None, zero_point: Tensor | None, activation_bits: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """float `[..., K]` to uint8 and its quantization parameters: those given, or without them one scale and zero point per row.

    `activation_bits` below 8 leaves the lowest `2**activation_bits` of the 256 levels; values beyond are clipped. Measured rows have all.
    """
    if scale is None or zero_point is None:
        return torch.ops.optimum_int8.quantize_rows(x)
    return quantize_static(x, scale, zero_point, activation_bits), scale, zero_point


def quantize_images(
    x: Tensor, scale: Tensor | None, zero_point: Tensor | None, activation_bits: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """`quantize_input` of `[batch, height, width, channels]`: without parameters, one scale and zero point per image."""
    if scale is None or zero_point is None:
        return torch.ops.optimum_int8.quantize_samples(x)
    return quantize_static(x, scale, zero_point, activation_bits), scale, zero_point


def quantize_static(x: Tensor, scale: Tensor, zero_point: Tensor, activation_bits: int = 8) -> Tensor:
    """float of any shape to uint8, with the scale and zero point of the tensor."""
    q = torch.ops.optimum_int8.quantize(x, scale, zero_point)
    return q if activation_bits == 8 else q.clamp(max=numerics.affine_max(activation_bits))
