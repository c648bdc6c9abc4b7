"""The attention core in bfloat16: the remedy where INT8 queries, keys or values cost accuracy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..numerics import for_each_query
from .attention import float32_attention
from .base import Int8Module
from .gradient import wants_gradients


class Bfloat16Attention(Int8Module):
    """A core as `numerics.bfloat16_attention` defines it. Nothing is stored.

    It takes the place of an `Int8Attention`, with the same arguments, and of a `FakeQuantizedAttention`, with dropout: where gradients or
    dropout are wanted torch computes it, which also rounds the result, and gives zeros to a query that sees no key.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        causal: bool,
        dropout: float = 0.0,
    ) -> Tensor:
        """float `[batch, heads, length, head]` to `[batch, length, heads, head]`, in query's dtype."""
        dropped = dropout if self.training else 0.0
        if not dropped and not wants_gradients(query, key, value):
            return float32_attention(query, key, value, mask, scaling, causal, bfloat16=True)
        q, k, v = (x.to(torch.bfloat16) for x in (query, *for_each_query(query, key, value)))
        out = functional.scaled_dot_product_attention(q, k, v, mask, dropped, causal, scale=scaling)
        return out.transpose(1, 2).to(query.dtype).contiguous()
