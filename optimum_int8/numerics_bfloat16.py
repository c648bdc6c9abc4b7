"""Arithmetic in bfloat16: what is left of INT8 where INT8 is too coarse and float32 too slow."""

from __future__ import annotations

import torch
from torch import Tensor

from . import numerics


def attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Attention core on operands in bfloat16, with scores, softmax and sums in float32: bfloat16 `[batch, heads, queries, head]`.

    Queries, keys, values and each row's exponentials, in shares of its largest, are rounded; so is the result. Products of two bfloat16
    are exact in float32. What a processor adds up in another order differs by float rounding, and then by one step of bfloat16.

    Args: as `numerics.attention`, with queries, keys and values in float32.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    q, k, v = (t.to(torch.bfloat16).to(torch.float32) for t in (query, key, value))
    scores = numerics.mask_scores((q @ k.transpose(-1, -2)) * scaling, mask, causal)
    e = numerics.exp(scores - scores.amax(-1, keepdim=True))
    out = e.to(torch.bfloat16).to(torch.float32) @ v
    return (out / numerics.row_sum(e).unsqueeze(-1)).to(torch.bfloat16)
