"""The definition of the INT8 product of two activations row by row: `numerics_matmul` on symmetric rows.

It is the first half of `numerics.attention` on its own: what relative positions add to attention's scores.
"""

from __future__ import annotations

from torch import Tensor

from . import numerics, numerics_matmul
from .numerics import SYMMETRIC_ZERO_POINT

MAX_FLOAT_REDUCTION = numerics_matmul.exact_in_float(symmetric=True)
"""Largest K of `scores_in_float`."""


def scores(query: Tensor, key: Tensor, query_scale: Tensor, key_scale: Tensor) -> Tensor:
    """uint8 `[..., M, K]` by uint8 `[..., N, K]`, both with zero point 128, to float32 `[..., M, N]`: `sums * (query_scale * key_scale)`.

    Args:
        query_scale, key_scale: float32 scalars (static), or one per row, `[..., M]` and `[..., N]` (dynamic). Leading axes broadcast.
    """
    return numerics_matmul.matmul(query, query_scale, SYMMETRIC_ZERO_POINT, key.transpose(-1, -2), key_scale)


def scores_in_float(query: Tensor, key: Tensor, query_scale: Tensor, key_scale: Tensor) -> Tensor:
    """`scores`, to the bit, by a float32 product; of rows no longer than `MAX_FLOAT_REDUCTION`."""
    return numerics_matmul.matmul_in_float(query, query_scale, SYMMETRIC_ZERO_POINT, key.transpose(-1, -2), key_scale)


def symmetric_rows(x: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """float `[..., K]` as uint8 with zero point 128, and its scale: the one given, or one per row, `[...]`."""
    used = numerics.symmetric_row_scale(x) if scale is None else scale
    return numerics.quantize_affine(x, used if scale is not None else used.unsqueeze(-1), SYMMETRIC_ZERO_POINT), used
