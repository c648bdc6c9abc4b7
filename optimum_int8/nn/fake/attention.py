"""The attention core as `Int8Attention` computes it, in float, for training; plugged in through the same interface."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ... import numerics
from ...numerics import LOG2E, for_each_query, softmax_weight
from ..attention import core_arguments, fits_eager_core, int8_attention_forward
from ..eager import register_core, run_eager, unknown_argument, wants_weights
from ..masks import int8_mask
from .quantize import FakeQuantize

FAKE_IMPLEMENTATION = "optimum_int8_fake_quantized"
"""Name in Transformers' attention interface."""

FAKE_CHILD = "fake_quantized_attention"
"""Name under which an attention module holds its `FakeQuantizedAttention`."""


class FakeQuantizedAttention(nn.Module):
    """One attention core on fake-quantized queries, keys, values and probabilities; see `numerics.int8_attention`."""

    def __init__(self, query: FakeQuantize, key: FakeQuantize, value: FakeQuantize) -> None:
        super().__init__()
        self.query = query
        self.key = key
        self.value = value

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
        """float `[batch, heads, length, head]` to `[batch, length, heads, head]`."""
        query, key, value = (
            fake_quantize(x, x.transpose(1, 2).flatten(2) if fake_quantize.observing and self.training else None)
            for fake_quantize, x in zip((self.query, self.key, self.value), (query, key, value), strict=True)
        )
        key, value = for_each_query(query, key, value)
        scores = numerics.mask_scores((query @ key.transpose(-1, -2)).float() * scaling, mask, causal)
        e = _exp(scores - scores.detach().amax(-1, keepdim=True))
        p = functional.dropout(_Probabilities.apply(e), dropout, self.training)
        return (p.to(value.dtype) @ value / e.sum(-1, keepdim=True)).to(value.dtype).transpose(1, 2)


def _exp(x: Tensor) -> Tensor:
    """What inference takes for e**x, of x <= 0; with the gradient of e**x."""
    exact = x.exp()
    return exact + (softmax_weight(x.detach() * LOG2E) * (1.0 / numerics.QMAX) - exact.detach())


class _Probabilities(torch.autograd.Function):
    """Values in [0, 1] on 256 levels; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, e: Tensor) -> Tensor:
        return (e * float(numerics.QMAX)).round_().mul_(1.0 / numerics.QMAX)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def fake_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Transformers' attention interface: fake-quantized where `int8_attention_forward` runs on INT8."""
    given = (module, query, key, value, attention_mask, dropout, scaling, is_causal)
    if unknown_argument(module, kwargs):
        return int8_attention_forward(*given, position_bias=position_bias, **kwargs)
    core = module._modules.get(FAKE_CHILD)
    if core is None or key.shape[-1] != value.shape[-1]:
        return sdpa_attention_forward(*given, position_bias=position_bias, **kwargs)
    tensors = (query, key, value, attention_mask, position_bias)
    return core(*core_arguments(module, *tensors, scaling, is_causal), dropout), None


def fake_eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """As `fake_attention_forward`, where `int8_eager_attention_forward` runs on INT8."""
    core = module._modules.get(FAKE_CHILD)
    if core is None or wants_weights(kwargs) or not fits_eager_core(module, key, value, attention_mask, kwargs):
        if position_bias is not None:
            kwargs["position_bias"] = position_bias
        return run_eager(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    tensors = (query, key, value, attention_mask, position_bias)
    return core(*core_arguments(module, *tensors, scaling, False), dropout), None


register_core(FAKE_IMPLEMENTATION, fake_attention_forward, fake_eager_attention_forward, int8_mask)
