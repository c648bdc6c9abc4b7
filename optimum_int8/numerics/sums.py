"""Sums and concatenations of INT8 values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .quantization import dequantize_affine, quantize_affine


def add(
    x: Tensor, scale: Tensor, zero_point: int | Tensor, y: Tensor, y_scale: Tensor, y_zero_point: int | Tensor
) -> Tensor:
    """`(x - zero_point) * scale + (y - y_zero_point) * y_scale`: uint8 of shapes that broadcast, to float32."""
    return dequantize_affine(x, scale, zero_point) + dequantize_affine(y, y_scale, y_zero_point)


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
    """`add`, quantized: uint8."""
    return quantize_affine(add(x, scale, zero_point, y, y_scale, y_zero_point), output_scale, output_zero_point)


def cat_quantized(
    parts: Sequence[Tensor],
    scales: Sequence[Tensor],
    zero_points: Sequence[Tensor],
    output_scale: Tensor,
    output_zero_point: Tensor,
) -> Tensor:
    """uint8 `[..., n_i]`, each with a scale and zero point of its own, to uint8 `[..., sum of n_i]` with one: each value goes through
    float32. A part that has the result's scale and zero point keeps its bytes, as `(q - z) * s * (1 / s)` is within 2**-14 of a whole number."""
    quantized = zip(parts, scales, zero_points, strict=True)
    floats = [dequantize_affine(q, scale, zero_point) for q, scale, zero_point in quantized]
    return torch.cat([quantize_affine(x, output_scale, output_zero_point) for x in floats], -1)
