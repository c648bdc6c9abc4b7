"""The definition of the INT8 product of two activations, in plain torch; continues `numerics`, with its rules."""

from __future__ import annotations

import torch
from torch import Tensor

from .numerics import SYMMETRIC_ZERO_POINT


def matmul(x: Tensor, scale: Tensor, zero_point: int | Tensor, y: Tensor, y_scale: Tensor) -> Tensor:
    """Two activations: uint8 `[..., M, K]` by uint8 `[..., K, N]` with zero point 128, to float32 `[..., M, N]`: `sums * (scale * y_scale)`.

    Args:
        scale, y_scale: float32 scalars, or one per row of x, `[..., M]`, and per column of y, `[..., N]`. Leading axes broadcast.
        zero_point: of x, a scalar.
    """
    return _product(x, scale, zero_point, y, y_scale, torch.float64)


def matmul_in_float(x: Tensor, scale: Tensor, zero_point: int | Tensor, y: Tensor, y_scale: Tensor) -> Tensor:
    """`matmul`, to the bit, by a float32 product; of sums no longer than `exact_in_float`."""
    return _product(x, scale, zero_point, y, y_scale, torch.float32)


def exact_in_float(symmetric: bool) -> int:
    """Largest K whose sums are whole numbers that float32 holds, in whatever order they are added: of at most 128 * 128 each where both zero
    points are 128, else 255 * 128."""
    return 2**24 // (SYMMETRIC_ZERO_POINT * (SYMMETRIC_ZERO_POINT if symmetric else 255))


def _product(
    x: Tensor, scale: Tensor, zero_point: int | Tensor, y: Tensor, y_scale: Tensor, dtype: torch.dtype
) -> Tensor:
    sums = (x.to(dtype) - zero_point) @ (y.to(dtype) - SYMMETRIC_ZERO_POINT)
    rows, columns = scale.to(torch.float32), y_scale.to(torch.float32)
    rows = rows.unsqueeze(-1) if rows.dim() else rows
    columns = columns.unsqueeze(-2) if columns.dim() else columns
    return (sums + 0.0).to(torch.float32) * (rows * columns)  # an integer has no negative zero
