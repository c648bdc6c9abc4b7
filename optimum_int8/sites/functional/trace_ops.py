"""`OpTracer`: what a model computes, seen from outside of it: a torch function mode sees each op, the stack says whose it is.

Both belong to the thread that runs the model and end with the block, so that nothing is left behind, whatever happens inside.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from .call_place import OPS


def _opened(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of `torch.nn.functional` that does not hand itself over whole to a mode, so that the mode sees what it calls."""
    scope = {**function.__globals__, "has_torch_function": lambda *_: False}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_OPENED = {F.multi_head_attention_forward: _opened(F.multi_head_attention_forward)}


class OpTracer(TorchFunctionMode):
    """Hands each op that can be one of a recipe to `on_op` before it runs; what that returns is given the result."""

    def __init__(self, on_op: Callable[..., Callable[[Any], None] | None]) -> None:
        super().__init__()
        self.on_op = on_op

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _OPENED:
            with self:
                return _OPENED[func](*args, **kwargs)
        on_result = None
        if (func in OPS or _reads_parameter(func, args)) and not torch.compiler.is_compiling():
            on_result = self.on_op(func, args, kwargs, sys._getframe(1))
        result = func(*args, **kwargs)
        if on_result is not None:
            on_result(result)
        return result


def _reads_parameter(func: Any, args: Any) -> bool:
    """Whether a function takes the values of a parameter, and not its shape or dtype alone."""
    if not any(type(x) is nn.Parameter for x in args):
        return False
    name = getattr(func, "__name__", "")
    return getattr(func.__self__, "__name__", "") in _VIEWS if name == "__get__" else name not in _ABOUT


_ABOUT = ("size", "dim", "numel", "stride", "is_floating_point", "requires_grad_", "__set__", "__hash__")
_VIEWS = ("T", "mT", "H", "mH", "data", "real")
"""Properties of a tensor that give its values."""
