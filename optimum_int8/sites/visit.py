"""Float sites whose calls are handed to a visitor, with what their INT8 counterparts compute on the same input."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from ..nn.base import Int8Module
from .settings import Visit


@contextlib.contextmanager
def visit_modules(model: nn.Module, int8: Mapping[str, Int8Module], visit: Visit) -> Iterator[None]:
    """Within, every call of the modules that `int8` names is handed to `visit`."""
    with contextlib.ExitStack() as stack:
        for name, counterpart in int8.items():
            module = model.get_submodule(name)
            stack.callback(module.register_forward_hook(_hook(name, counterpart, visit), with_kwargs=True).remove)
        yield


def _hook(name: str, int8: Int8Module, visit: Visit) -> Callable[..., Tensor | None]:
    def compared(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor | None:
        given = inputs or tuple(named.values())
        return visit(name, given, output, lambda: int8(*inputs, **named), lambda: module.forward(*inputs, **named))

    return compared
