"""The attention core on INT8 queries, keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from .activations import LOG2E, softmax_weight
from .norms import row_sum
from .quantization import SYMMETRIC_ZERO_POINT, reciprocal

MASKED = -1e30


def int8_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_scale: Tensor,
    key_scale: Tensor,
    value_scale: Tensor,
    scaling: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """INT8 attention core: float32 `[batch, heads, queries, head]`.

    `exp(score - max)`, as a power of two, times the values' row scales when dynamic, becomes uint8 in 255ths of the row's largest; the float
    sum of the powers normalises.

    Args:
        query, key, value: uint8 with zero point 128, `[batch, heads, length, head]`; fewer key heads than query heads are shared.
        query_scale, key_scale, value_scale: float32 scalars (static), or `[batch, heads, length]` (dynamic).
        mask: boolean (True attends) or float32 added to the scores, broadcastable to `[batch, heads, queries, keys]`.
        causal: query i sees keys up to `i + keys - queries`.
    """
    static = torch.as_tensor(value_scale).dim() == 0
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    query_scale, key_scale, value_scale = (
        _per_row(t, groups if i else 1) for i, t in enumerate((query_scale, key_scale, value_scale))
    )
    q, k, v = (t.to(torch.float64) - SYMMETRIC_ZERO_POINT for t in (query, key, value))
    scaling_2 = torch.tensor(scaling, dtype=torch.float32) * LOG2E
    factor = (query_scale * scaling_2).unsqueeze(-1) * key_scale.unsqueeze(-2)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(torch.float32) * LOG2E
    scores = mask_scores((q @ k.transpose(-1, -2)).to(torch.float32) * factor, mask, causal)
    weights = softmax_weight(scores - scores.amax(-1, keepdim=True))
    total = row_sum(weights)
    if static:
        p = torch.round(weights)
        unit = value_scale / total
    else:
        weights = weights * value_scale.unsqueeze(-2)
        top = weights.amax(-1)
        # a tensor divided by a tensor: a number divided by one would be a product with its reciprocal
        p = torch.round(weights * (torch.tensor(255.0) / top).unsqueeze(-1))
        unit = top * reciprocal(torch.tensor(255.0)) / total
    return (p.to(torch.float64) @ v).to(torch.float32) * unit.unsqueeze(-1)


def _per_row(scale: Tensor, groups: int) -> Tensor:
    scale = torch.as_tensor(scale, dtype=torch.float32)
    return scale.reshape(1, 1, 1) if scale.dim() == 0 else scale.repeat_interleave(groups, 1)


def mask_scores(scores: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention scores with `attention`'s mask on them."""
    if mask is not None and mask.dtype == torch.bool:
        scores = torch.where(mask, scores, MASKED)
    elif mask is not None:
        scores = scores + mask.to(torch.float32).clamp(min=MASKED)
    if causal:
        queries, keys = scores.shape[-2:]
        visible = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(keys - queries)
        return torch.where(visible, scores, MASKED)
    return scores
