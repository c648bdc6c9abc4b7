"""The definition of the INT8 product of two activations row by row, in plain torch; continues `numerics`, with its rules.

It is the first half of `numerics.attention` on its own: what relative positions add to attention's scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import numerics
from .numerics import SYMMETRIC_ZERO_POINT

MAX_FLOAT_REDUCTION = 1024
"""Largest K whose sums, of at most 128 * 128 each, are whole numbers that float32 holds, in whatever order they are added."""


def scores(query: Tensor, key: Tensor, query_scale: Tensor, key_scale: Tensor) -> Tensor:
    """uint8 `[..., M, K]` by uint8 `[..., N, K]`, both with zero point 128, to float32 `[..., M, N]`: `sums * (query_scale * key_scale)`.

    Args:
        query_scale, key_scale: float32 scalars (static), or one per row, `[..., M]` and `[..., N]` (dynamic). Leading axes broadcast.
    """
    q, k = (x.to(torch.float64) - SYMMETRIC_ZERO_POINT for x in (query, key))
    return _scaled((q @ k.transpose(-1, -2)).to(torch.float32), query_scale, key_scale)


def scores_in_float(query: Tensor, key: Tensor, query_scale: Tensor, key_scale: Tensor) -> Tensor:
    """`scores`, to the bit, by a float32 product; of rows no longer than `MAX_FLOAT_REDUCTION`."""
    q, k = (x.to(torch.float32) - SYMMETRIC_ZERO_POINT for x in (query, key))
    return _scaled(q @ k.transpose(-1, -2), query_scale, key_scale)


def symmetric_rows(x: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """float `[..., K]` as uint8 with zero point 128, and its scale: the one given, or one per row, `[...]`."""
    used = numerics.symmetric_row_scale(x) if scale is None else scale
    return numerics.quantize_affine(x, used if scale is not None else used.unsqueeze(-1), SYMMETRIC_ZERO_POINT), used


def _scaled(sums: Tensor, query_scale: Tensor, key_scale: Tensor) -> Tensor:
    rows = query_scale.to(torch.float32)
    columns = key_scale.to(torch.float32)
    rows = rows.unsqueeze(-1) if rows.dim() else rows
    columns = columns.unsqueeze(-2) if columns.dim() else columns
    return sums * (rows * columns)
