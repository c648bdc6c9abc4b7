"""The float model next to the INT8 counterpart of each site: what each site computes both ways, on the same input."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from ..nn import (
    CHILD,
    FLOAT_IMPLEMENTATION,
    Int8Module,
    attentions,
    int8_attention_forward,
    restore_attention,
    set_attention,
)
from ..nn.attention import int8_eager_attention_forward
from ..nn.eager import register_core, run_eager
from ..prepare import Prepared
from ..remedies import evaluating
from ..sites import CORES

_COMPARED = "optimum_int8_compared"

Compute = Callable[[], Tensor]
Visit = Callable[[str, tuple[Any, ...], Tensor, Compute, Compute], "Tensor | None"]
"""Called with a site's name, its inputs, its float output, and functions that compute the INT8 and the float output again. A
tensor that it returns takes the place of the float output."""

_visits: ContextVar[Mapping[nn.Module, Callable[..., Tensor]]] = ContextVar("visits")


class Counterparts:
    """INT8 counterparts of all sites of a prepared model; the model stays float.

    Args:
        instead: computes the attention cores in place of float32.
    """

    def __init__(self, prepared: Prepared, instead: Int8Module | None = None) -> None:
        self.instead = instead
        self.model = prepared.model
        self.kinds = dict(prepared.sites.int8)
        self.int8: dict[str, Int8Module] = {name: prepared.twin(name) for name in self.kinds}

    @contextlib.contextmanager
    def visited(self, visit: Visit) -> Iterator[None]:
        """Within, every call of a site is handed to `visit`. Evaluation mode, no gradients; all is undone at the end."""
        cores: dict[nn.Module, Callable[..., Tensor]] = {}
        with evaluating(self.model), contextlib.ExitStack() as stack:
            for name, kind in self.kinds.items():
                module = self.model.get_submodule(name)
                if kind in CORES:
                    cores[module] = _core_visit(name, self.int8[name], self.instead, visit)
                else:
                    stack.callback(module.register_forward_hook(_hook(name, self.int8[name], visit)).remove)
            token = _visits.set(cores)
            stack.callback(_visits.reset, token)
            if cores:
                stack.callback(restore_attention, self.model, attentions(self.model))
                set_attention(self.model, _COMPARED)
            yield


def _hook(name: str, int8: Int8Module, visit: Visit) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
    def compared(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return visit(name, inputs, output, lambda: int8(*inputs), lambda: module.forward(*inputs))

    return compared


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
