"""DeBERTa-v2's disentangled attention with its core in Transformers' interface and its products with positions as sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

from ..core_caller import CoreCaller
from ..scores import Scores

_PRODUCTS = ("content_to_position", "position_to_content")


class _Operand:
    """A tensor `[batch * heads, length, head]` whose `torch.bmm` with positions runs `product`."""

    def __init__(self, rows: Tensor, product: Scores, heads: int) -> None:
        self.rows = rows
        self.product = product
        self.heads = heads

    def size(self, axis: int) -> int:
        """As the tensor's."""
        return self.rows.size(axis)

    @property
    def device(self) -> torch.device:
        """As the tensor's."""
        return self.rows.device

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Tensor:
        """Computes the one function that calls are known of."""
        if func is not torch.bmm or not isinstance(args[0], _Operand):
            raise TypeError(f"DeBERTa's positions meet {getattr(func, '__name__', func)}; expected torch.bmm")
        operand, positions = args
        parts = (x.unflatten(0, (-1, operand.heads)) for x in (operand.rows, positions.transpose(-1, -2)))
        return operand.product(*parts).flatten(0, 1)


class UnpackedDisentangledAttention(CoreCaller, DisentangledSelfAttention):
    """`DisentangledSelfAttention` with children `content_to_position` and `position_to_content`; same call and, up to rounding, same
    results."""

    query_proj: nn.Module
    key_proj: nn.Module
    value_proj: nn.Module
    num_attention_heads: int
    pos_att_type: Sequence[str]
    pos_dropout: nn.Module
    dropout: nn.Dropout
    transpose_for_scores: Callable[[Tensor, int], Tensor]
    disentangled_attention_bias: Callable[..., Tensor]

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As DeBERTa's. With `output_attentions` the core runs in float, as INT8 never holds the weights."""
        if output_attentions:
            return super().forward(
                hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings
            )
        heads = self.num_attention_heads
        query_states = hidden_states if query_states is None else query_states
        query, key, value = (
            self.transpose_for_scores(projection(x), heads)
            for projection, x in (
                (self.query_proj, query_states), (self.key_proj, hidden_states), (self.value_proj, hidden_states),
            )
        )  # fmt: skip
        parts = 1 + sum(name in self.pos_att_type for name in ("c2p", "p2c"))
        hidden = ~attention_mask.bool()
        bias = query.new_zeros(1, 1, 1, 1)
        if self.relative_attention and parts > 1:
            c2p, p2c = (_Operand(x, getattr(self, n), heads) for x, n in zip((query, key), _PRODUCTS, strict=True))
            rel_embeddings = self.pos_dropout(rel_embeddings)
            bias = self.disentangled_attention_bias(c2p, p2c, relative_pos, rel_embeddings, parts)
            bias = bias.unflatten(0, (-1, heads))
        mask = bias.masked_fill(hidden, torch.finfo(query.dtype).min)
        query, key, value = (x.unflatten(0, (-1, heads)) for x in (query, key, value))
        dropout = self.dropout.p if self.training else 0.0
        scaling = (query.shape[-1] * parts) ** -0.5
        out, _ = self.core(self, query, key, value, mask, dropout=dropout, scaling=scaling, is_causal=False)
        return out.flatten(-2), None


def unpack(module: DisentangledSelfAttention) -> None:
    """In place."""
    for name in _PRODUCTS:
        module.add_module(name, Scores().train(module.training))
    module.__class__ = UnpackedDisentangledAttention
