"""Attention cores in float that show what flows into them, for calibration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from ..nn.core_caller import FLOAT_IMPLEMENTATION
from ..nn.eager import register_core, run_eager

OBSERVING = "optimum_int8_observing"
"""Name in Transformers' attention interface."""

ATTENTION_INPUTS = ("query", "key", "value")

Observe = Callable[[nn.Module, str, Tensor], None]
"""Told of a module, the name of an input of its core, and that input as `[batch, length, heads * head]`."""

_observe: ContextVar[Observe] = ContextVar("observe")


@contextlib.contextmanager
def observing_cores(observe: Observe) -> Iterator[None]:
    """Within, this thread's cores of the implementation `OBSERVING` tell `observe` of their inputs."""
    token = _observe.set(observe)
    try:
        yield
    finally:
        _observe.reset(token)


def _observing_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    _tell(module, query, key, value)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _observing_eager_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    _tell(module, query, key, value)
    return run_eager(module, query, key, value, attention_mask, **kwargs)


def _tell(module: nn.Module, *inputs: Tensor) -> None:
    observe = _observe.get()
    for name, x in zip(ATTENTION_INPUTS, inputs, strict=True):
        observe(module, name, x.transpose(1, 2).flatten(2))


register_core(
    OBSERVING, _observing_attention, _observing_eager_attention, ALL_MASK_ATTENTION_FUNCTIONS[FLOAT_IMPLEMENTATION]
)
