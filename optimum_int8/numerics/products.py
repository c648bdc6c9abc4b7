"""Products of two activations, whole (`matmul`) and row by row on symmetric rows (`scores`).

Scores are the first half of `int8_attention` on its own: what relative positions add to attention's scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .quantization import SYMMETRIC_ZERO_POINT


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
    """Largest K whose sums are whole numbers that float32 holds, in any order of addition: of at most 128 * 128 each where both zero
    points are 128, else 255 * 128."""
    return 2**24 // (SYMMETRIC_ZERO_POINT * (SYMMETRIC_ZERO_POINT if symmetric else 255))


def _product(
    x: Tensor, scale: Tensor, zero_point: int | Tensor, y: Tensor, y_scale: Tensor, dtype: torch.dtype
) -> Tensor:
    sums = (x.to(dtype) - zero_point) @ (y.to(dtype) - SYMMETRIC_ZERO_POINT)
    rows = scale.to(torch.float32)
    columns = y_scale.to(torch.float32)
    rows = rows.unsqueeze(-1) if rows.dim() else rows
    columns = columns.unsqueeze(-2) if columns.dim() else columns
    return (sums + 0.0).to(torch.float32) * (rows * columns)  # an integer has no negative zero


MAX_FLOAT_REDUCTION = exact_in_float(symmetric=True)
"""Largest K of `scores_in_float`."""


def scores(query: Tensor, key: Tensor, query_scale: Tensor, key_scale: Tensor) -> Tensor:
    """uint8 `[..., M, K]` by uint8 `[..., N, K]`, both with zero point 128, to float32 `[..., M, N]`: `sums * (query_scale * key_scale)`.

    Args:
        query_scale, key_scale: float32 scalars (static), or one per row, `[..., M]` and `[..., N]` (dynamic). Leading axes broadcast.
    """
    return matmul(query, query_scale, SYMMETRIC_ZERO_POINT, key.transpose(-1, -2), key_scale)


def scores_in_float(query: Tensor, key: Tensor, query_scale: Tensor, key_scale: Tensor) -> Tensor:
    """`scores`, to the bit, by a float32 product; of rows no longer than `MAX_FLOAT_REDUCTION`."""
    return matmul_in_float(query, query_scale, SYMMETRIC_ZERO_POINT, key.transpose(-1, -2), key_scale)
