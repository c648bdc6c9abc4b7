"""Where a channel's weights are clipped: the search for the scale with the least error of the channel's output."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics

RATIOS = 21
SMALLEST_RATIO = 0.5
"""Ends tried per channel: evenly spaced shares of its largest magnitude, from this one to 1."""


def search_weight_scale(weight: Tensor, rows: Tensor | None = None, per_channel: bool = True) -> Tensor:
    """The scale of each output channel that makes the output's squared error on `rows` least.

    A smaller scale clips the largest weights and rounds all others finer. The scale that clips nothing is among those
    tried, so the result is never worse than it, on `rows`.

    Args:
        weight: float `[out, in]`.
        rows: float `[n, in]`, inputs of the layer; None minimises the error of the weights themselves.
        per_channel: False tries one ratio for all channels, with the same scale.

    Returns:
        float32 `[out]`, for `numerics.quantize_weight`.

    Example:
        >>> weight = torch.cat([torch.full((1, 999), 0.1), torch.ones(1, 1)], 1)
        >>> bool(search_weight_scale(weight) <= numerics.quantize_weight(weight)[1])
        True
    """
    weight = weight.detach().float()
    _, whole = numerics.quantize_weight(weight, per_channel)
    best = whole
    least = _error(weight, whole, rows, per_channel)
    for ratio in torch.linspace(SMALLEST_RATIO, 1.0, RATIOS)[:-1].flip(0):
        scale = whole * ratio
        error = _error(weight, scale, rows, per_channel)
        better = error < least
        best = torch.where(better, scale, best)
        least = torch.where(better, error, least)
    return best.contiguous()


def _error(weight: Tensor, scale: Tensor, rows: Tensor | None, per_channel: bool) -> Tensor:
    q, _ = numerics.quantize_weight(weight, scale=scale)
    difference = q.float() * scale.unsqueeze(1) - weight
    if rows is None:
        error = difference.square().sum(1)
    else:
        error = (rows.float() @ difference.T).square().sum(0)
    return error if per_channel else error.sum().expand(len(error))
