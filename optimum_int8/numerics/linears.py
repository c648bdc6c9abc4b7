"""Linears: uint8 activations by int8 weights."""

from __future__ import annotations

import torch
from torch import Tensor

from .activations import ACTIVATIONS

MAX_REDUCTION = 65_793
"""Largest K of a linear: 255 * 128 * K must stay below 2**31. Weights of other packages may be -128, ours never are."""


def matmul_int32(x: Tensor, zero_point: int | Tensor, weight: Tensor) -> Tensor:
    """Exact `(x - zero_point) @ weight.T`: uint8 `[..., K]` by int8 `[N, K]` to int32 `[..., N]`.

    Computed in float64, where each product and each sum of up to `MAX_REDUCTION` of them is an exact integer.
    """
    centred = x.to(torch.float64) - torch.as_tensor(zero_point).to(torch.float64)
    return (centred @ weight.to(torch.float64).T).to(torch.int32)


def linear(
    x: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    """`activation((x - zero_point) @ weight.T * (scale * weight_scale) + bias)` in float32.

    Args:
        x: uint8 `[..., K]`.
        scale, zero_point: of x; scalars (static), or one per row, of shape `[...]` (dynamic).
        weight: int8 `[N, K]`.
        weight_scale: float32 `[N]`.
        bias: float32 `[N]`.
        activation: a key of `ACTIVATIONS`.
    """
    scale = torch.as_tensor(scale)
    zero_point = torch.as_tensor(zero_point)
    if scale.dim():
        scale = scale.unsqueeze(-1)
        zero_point = zero_point.unsqueeze(-1)
    y = matmul_int32(x, zero_point, weight).to(torch.float32) * (scale.to(torch.float32) * weight_scale)
    return ACTIVATIONS[activation](y if bias is None else y + bias)
