"""Arithmetic in bfloat16: what is left of INT8 where INT8 is too coarse and float32 too slow."""

from __future__ import annotations

import torch
from torch import Tensor

from . import numerics_float


def attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Attention core on operands in bfloat16, with scores, softmax and sums in float32: float32 `[batch, heads, queries, head]`.

    Queries, keys, values and each row's exponentials, in shares of its largest, are rounded. Products of two bfloat16 are exact in
    float32. Their sums run in `numerics_float`'s order, except on AMX: its tiles add 16 pairs in two chains, then both to the sum, and
    take numbers below 2**-126 for zero, so that results there differ by float rounding, and now and then by that of an exponential.

    Args: as `numerics_float.attention`.
    """
    return numerics_float.attention(query, key, value, scaling, mask, causal, rounded)


def rounded(x: Tensor) -> Tensor:
    """The next bfloat16, half to even, in float32."""
    return x.to(torch.bfloat16).to(torch.float32)
