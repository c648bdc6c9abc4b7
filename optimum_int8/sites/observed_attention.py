"""Attention cores in float that show what flows into them, for calibration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from ..nn.core_caller import FLOAT_IMPLEMENTATION
from ..nn.eager import register_core, run_eager
from ..nn.implementations import attentions, restore_attention, set_attention
from .settings import Observe

ATTENTION_INPUTS = ("query", "key", "value")

_OBSERVING = "optimum_int8_observing"

_observe: ContextVar[Observe] = ContextVar("observe")


@contextlib.contextmanager
def observe_cores(model: nn.Module, observe: Observe) -> Iterator[None]:
    """Within, the attention cores of a model, in this thread, tell `observe` of their query, key and value, `[batch, heads, length, head]`."""
    before = attentions(model)
    token = _observe.set(observe)
    try:
        set_attention(model, _OBSERVING)
        yield
    finally:
        restore_attention(model, before)
        _observe.reset(token)


def _observing_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    _observe.get()(module, (query, key, value))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _observing_eager_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    _observe.get()(module, (query, key, value))
    return run_eager(module, query, key, value, attention_mask, **kwargs)


register_core(
    _OBSERVING, _observing_attention, _observing_eager_attention, ALL_MASK_ATTENTION_FUNCTIONS[FLOAT_IMPLEMENTATION]
)
