"""Attention cores in float whose calls are handed to a visitor, with what the INT8 core computes on the same input."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from ..nn.attention import CHILD, int8_attention_forward, int8_eager_attention_forward
from ..nn.base import Int8Module
from ..nn.core_caller import FLOAT_IMPLEMENTATION
from ..nn.eager import register_core, run_eager
from ..nn.implementations import attentions, restore_attention, set_attention
from .settings import Visit

_COMPARED = "optimum_int8_compared"

_visits: ContextVar[Mapping[nn.Module, Callable[..., Tensor]]] = ContextVar("visits")


@contextlib.contextmanager
def visit_cores(
    model: nn.Module, int8: Mapping[str, Int8Module], visit: Visit, instead: Int8Module | None
) -> Iterator[None]:
    """Within, every call of the attention cores that `int8` names is handed to `visit`.

    Args:
        instead: computes the cores in place of float32.
    """
    cores = {model.get_submodule(name): _core_visit(name, core, instead, visit) for name, core in int8.items()}
    token = _visits.set({**_visits.get({}), **cores})
    before = attentions(model)
    try:
        set_attention(model, _COMPARED)
        yield
    finally:
        restore_attention(model, before)
        _visits.reset(token)


def _core_visit(name: str, core: Int8Module, instead: Int8Module | None, visit: Visit) -> Callable[..., Tensor]:
    def compared(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, kwargs: dict[str, Any], eager: bool
    ) -> Tensor:
        exact_core = run_eager if eager else sdpa_attention_forward
        int8_core = int8_eager_attention_forward if eager else int8_attention_forward

        def on(core: Int8Module) -> Tensor:
            module._modules[CHILD] = core
            try:
                return int8_core(module, query, key, value, mask, **kwargs)[0]
            finally:
                del module._modules[CHILD]

        def int8() -> Tensor:
            return on(core)

        def exact() -> Tensor:
            return exact_core(module, query, key, value, mask, **kwargs)[0] if instead is None else on(instead)

        output = exact()
        replaced = visit(name, (query, key, value), output, int8, exact)
        return output if replaced is None else replaced

    return compared


def _compared_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    visit = _visits.get().get(module)
    if visit is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return visit(module, query, key, value, attention_mask, kwargs, False), None


def _compared_eager_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    visit = _visits.get().get(module)
    if visit is None:
        return run_eager(module, query, key, value, attention_mask, **kwargs)
    return visit(module, query, key, value, attention_mask, kwargs, True), None


register_core(
    _COMPARED, _compared_attention, _compared_eager_attention, ALL_MASK_ATTENTION_FUNCTIONS[FLOAT_IMPLEMENTATION]
)
