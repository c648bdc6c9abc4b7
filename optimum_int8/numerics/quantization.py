"""Scales, zero points, and rounding to them: per tensor, per row, per sample and per weight channel."""

from __future__ import annotations

import torch
from torch import Tensor

QMIN = 0
QMAX = 255

SIGNED_MAX = 127

SYMMETRIC_ZERO_POINT = 128
"""Signed values (attention's queries, keys and values) are kept as uint8 with this zero point."""

_TINY = 2.0**-126


def affine_max(bits: int = 8) -> int:
    """Largest of `2**bits` unsigned levels; half of it is the largest magnitude of signed ones."""
    return 2**bits - 1


def choose_affine_qparams(minimum: float, maximum: float, bits: int = 8) -> tuple[float, int]:
    """`(scale, zero_point)` of unsigned levels that cover `[minimum, maximum]` and represent 0.0 exactly.

    The range is widened to contain zero. A range of zero width gets the smallest scale, which maps 0.0 to the zero point.
    """
    scale, zero_point = affine_qparams(torch.tensor(float(minimum)), torch.tensor(float(maximum)), bits)
    return float(scale), int(zero_point)


def affine_qparams(minimum: Tensor, maximum: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """`choose_affine_qparams` of float32 tensors: a float32 scale and an int32 zero point of their shape."""
    top = affine_max(bits)
    low = minimum.clamp(max=0.0)
    scale = ((maximum.clamp(min=0.0) - low) * reciprocal(torch.tensor(float(top)))).clamp(min=_TINY)
    zero_point = torch.round((0.0 - low) * reciprocal(scale)).clamp(QMIN, top).to(torch.int32)
    return scale, zero_point


def choose_symmetric_scale(absmax: float, bits: int = 8) -> float:
    """Scale that maps `[-absmax, absmax]` to `[-127, 127]`, or to what fewer bits leave of it."""
    return float(symmetric_scale(torch.tensor(float(absmax)), bits))


def symmetric_scale(absmax: Tensor, bits: int = 8) -> Tensor:
    """`choose_symmetric_scale` of a float32 tensor."""
    return (absmax / float(affine_max(bits) // 2)).clamp(min=_TINY)


def reciprocal(scale: Tensor) -> Tensor:
    """`1 / scale` in float32: the factor that quantization multiplies with."""
    return 1.0 / scale.to(torch.float32)


def quantize_affine(x: Tensor, scale: float | Tensor, zero_point: int | Tensor) -> Tensor:
    """`clamp(round_half_even(x * (1 / scale)) + zero_point, 0, 255)` as uint8; NaN becomes 0.

    `scale` and `zero_point` broadcast against `x`.
    """
    inverse = reciprocal(torch.as_tensor(scale))
    zero = torch.as_tensor(zero_point).to(torch.float32)
    rounded = torch.round(x.to(torch.float32) * inverse).nan_to_num(
        nan=-float("inf"), posinf=float("inf"), neginf=-float("inf")
    )
    return (rounded + zero).clamp(QMIN, QMAX).to(torch.uint8)


def dequantize_affine(q: Tensor, scale: float | Tensor, zero_point: int | Tensor) -> Tensor:
    """`(q - zero_point) * scale` in float32."""
    return (q.to(torch.int32) - torch.as_tensor(zero_point)).to(torch.float32) * torch.as_tensor(scale).to(
        torch.float32
    )


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Dynamic quantization, one range per row of the last axis.

    Returns `(q, scale, zero_point)`: uint8 of x's shape, float32 and int32 of x's shape without the last axis.
    """
    x = x.to(torch.float32)
    scale, zero_point = affine_qparams(x.amin(-1), x.amax(-1))
    return quantize_affine(x, scale.unsqueeze(-1), zero_point.unsqueeze(-1)), scale, zero_point


def quantize_samples(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Dynamic quantization of images: one range per sample (the first axis), over all its values.

    Returns `(q, scale, zero_point)`: uint8 of x's shape, float32 and int32 `[batch]`.
    """
    x = x.to(torch.float32)
    flat = x.flatten(1)
    scale, zero_point = affine_qparams(flat.amin(1), flat.amax(1))
    shape = (-1, *[1] * (x.dim() - 1))
    return quantize_affine(x, scale.view(shape), zero_point.view(shape)), scale, zero_point


def symmetric_row_scale(x: Tensor) -> Tensor:
    """Scale of each row of the last axis that maps its largest magnitude to 127: float32, x's shape without the last axis."""
    return symmetric_scale(x.to(torch.float32).abs().amax(-1))


def symmetric_rows(x: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """float `[..., K]` as uint8 with zero point 128, and its scale: the one given, or one per row, `[...]`."""
    used = symmetric_row_scale(x) if scale is None else scale
    return quantize_affine(x, used if scale is not None else used.unsqueeze(-1), SYMMETRIC_ZERO_POINT), used


def choose_weight_scale(weight: Tensor, per_channel: bool = True) -> Tensor:
    """float32 `[rows]` scales of a `[rows, columns]` weight in [-127, 127]; per tensor, all rows carry the same scale."""
    weight = weight.detach().to(torch.float32)
    absmax = weight.abs().amax(1) if per_channel else weight.abs().amax().repeat(weight.shape[0])
    return symmetric_scale(absmax)


def quantize_weight(weight: Tensor, per_channel: bool = True, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Symmetric int8 in [-127, 127] of a `[rows, columns]` weight.

    Args:
        scale: float32 `[rows]`, chosen already (`remedies.search_weight_scale`); larger values are clipped. None takes the largest.

    Returns `(q, scale)`: int8 of weight's shape and float32 `[rows]`; per tensor, all rows carry the same scale.
    """
    weight = weight.detach().to(torch.float32)
    scale = choose_weight_scale(weight, per_channel) if scale is None else scale
    q = torch.round(weight * reciprocal(scale).unsqueeze(1)).clamp(-SIGNED_MAX, SIGNED_MAX)
    return q.to(torch.int8), scale
