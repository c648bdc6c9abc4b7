"""The attention core in float32, where INT8 queries, keys or values cost accuracy, and on operands in bfloat16, where float32 is too slow.

Sums of products run in order, each product added with one rounding (a fused multiply-add, which every processor with AVX2 has, and which
is twice as fast there as two roundings). All else is as in the other files, so that this, too, is the same to the bit on every ISA.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .activations import exp, tanh
from .attention_int8 import MASKED, mask_scores
from .norms import row_sum
from .quantization import reciprocal

KEY_BLOCK = 256
"""Keys that are weighed together: running maxima and sums go from one block to the next, as in FlashAttention (arXiv 2205.14135)."""

_VISIBLE = -80.0
"""Scores that are further below the largest of their row do not count, so that hidden keys may be left out."""


def float_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    mask: Tensor | None = None,
    causal: bool = False,
    rounded: Callable[[Tensor], Tensor] = lambda x: x,
    product: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    softcap: float = 0.0,
) -> Tensor:
    """Attention core in float32: `[batch, heads, queries, head]`. A query that sees no key gets the mean of the values.

    Args:
        query, key, value: float `[batch, heads, length, head]`; fewer key heads than query heads are shared.
        mask, causal: as `int8_attention`.
        rounded: applied to queries, keys, values and exponentials (not to the sums that divide them).
        product: in place of `multiply_add`, for speed where bits do not matter.
        softcap: makes scores `softcap * tanh(score / softcap)` before the mask, 0 leaves them.
    """
    product = multiply_add if product is None else product
    q, k, v = (rounded(t.to(torch.float32)) for t in (query, *for_each_query(query, key, value)))
    zeros = torch.zeros(*q.shape[:-1], k.shape[-2])
    factor = torch.tensor(scaling, dtype=torch.float32)
    scores = product(q, k.transpose(-1, -2), zeros) * factor
    if softcap:
        cap = torch.tensor(softcap, dtype=torch.float32)
        scores = tanh(scores * reciprocal(cap)) * cap
    scores = mask_scores(scores, mask, causal)
    sums = torch.zeros_like(q)
    total = torch.zeros(q.shape[:-1])
    peak = torch.full(q.shape[:-1], MASKED)
    for block, values in zip(scores.split(KEY_BLOCK, -1), v.split(KEY_BLOCK, -2), strict=True):
        largest = torch.maximum(peak, block.amax(-1))
        e = _exp(block - largest.unsqueeze(-1))
        before = _exp(peak - largest)
        sums = product(rounded(e), values, sums * before.unsqueeze(-1))
        total = total * before + row_sum(e)
        peak = largest
    return sums * reciprocal(total).unsqueeze(-1)


def for_each_query(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values with as many heads as queries, `[batch, heads, length, head]`: those that query heads share are repeated."""
    groups = query.shape[1] // key.shape[1]
    return (key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)) if groups > 1 else (key, value)


def _exp(x: Tensor) -> Tensor:
    return torch.where(x > _VISIBLE, exp(x), 0.0)


def multiply_add(x: Tensor, y: Tensor, sums: Tensor) -> Tensor:
    """`sums + x @ y`, float32 `[..., M, K]` by `[..., K, N]`: in the order of K, each product added with one rounding."""
    for k in range(x.shape[-1]):
        sums = _fused(x[..., k : k + 1], y[..., k : k + 1, :], sums)
    return sums


def _fused(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """`x * y + z` of float32, rounded once: the product is exact in float64, the sum there is rounded to odd (Boldo and Melquiond,
    "Emulation of a FMA and correctly rounded sums", 2008)."""
    product = x.to(torch.float64) * y.to(torch.float64)
    z = z.to(torch.float64)
    total = product + z
    part = total - product
    lost = (product - (total - part)) + (z - part)
    bits = total.view(torch.int64)
    to_odd = bits + torch.where((lost > 0) == (total > 0), 1, -1)
    inexact = lost.isfinite() & (lost != 0) & (bits % 2 == 0)
    return torch.where(inexact, to_odd, bits).view(torch.float64).to(torch.float32)


def bfloat16_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    mask: Tensor | None = None,
    causal: bool = False,
    softcap: float = 0.0,
) -> Tensor:
    """Attention core on operands in bfloat16, with scores, softmax and sums in float32: float32 `[batch, heads, queries, head]`.

    Queries, keys, values and each row's exponentials, relative to its largest, are rounded. Products of two bfloat16 are exact in
    float32. Their sums run in `float_attention`'s order, except on AMX: its tiles add 16 pairs in two chains, then both to the sum, and
    take numbers below 2**-126 for zero, so that results there differ by float rounding, and now and then by that of an exponential.

    Args: as `float_attention`.
    """
    return float_attention(query, key, value, scaling, mask, causal, round_to_bfloat16, softcap=softcap)


def round_to_bfloat16(x: Tensor) -> Tensor:
    """The next bfloat16, half to even, in float32."""
    return x.to(torch.bfloat16).to(torch.float32)
