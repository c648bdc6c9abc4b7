"""The first run of a stored graph, in which nothing of what the file says is taken on trust.

The module's own code ran before, for the same call. The graph may call an INT8 operator only with arguments of the sizes, and with the
very tensors of the module, that the own code called it with: native kernels see nothing else. Torch's operators check their arguments
themselves. What the file says of each value, by which programs are laid out, has to be true of the value computed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..fx import Captured
from ..fx.shapes import Shaped
from ..operators import bind, operator_of
from ..operators.registry import telling
from ..torch_private import OpOverload
from .stored_graphs import CHANGING, Unstorable

_LARGEST = 1 << 28
"""Elements that a tensor may have, so that no file asks for all of the memory: of larger calls the graph is captured."""
_MAKING = ("zeros", "ones", "full", "arange", "pad", "expand", "full_like", "zeros_like", "ones_like")
_MOST = 1 << 62

_SYMBOL = re.compile(r"\bs\d+\b")

Signature = tuple[Any, ...]


class Calls:
    """The calls of INT8 operators in a run of a module's own code."""

    def __init__(self, module: nn.Module) -> None:
        self.held = {t.data_ptr() for t in (*module.parameters(), *module.buffers()) if t.numel()}
        self.seen: set[Signature] = set()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within, calls of this thread are noted."""
        with telling(lambda target, args, kwargs: self.seen.add(self.signature(target, args, kwargs))):
            yield

    def signature(self, target: Any, args: Any, kwargs: Any) -> Signature:
        """What of a call decides which memory a kernel reads and writes."""
        return target, self._trait(list(bind(target, args, kwargs).values()))

    def _trait(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            pointer = value.data_ptr()
            return tuple(value.shape), value.dtype, pointer if pointer in self.held else 0
        if isinstance(value, (tuple, list)):
            return tuple([self._trait(item) for item in value])
        return type(value), value


def run_checked(captured: Captured, module: nn.Module, tensors: Sequence[Tensor], calls: Calls) -> list[Any]:
    """What a stored graph gives for a call.

    Args:
        tensors: copies of the call's.
        calls: of the module's own run for these.

    Raises:
        Unstorable: something that the file says is not so, or the graph would do what no captured one does.
        Exception: whatever an operator of torch raises.
    """
    values: dict[fx.Node, Any] = {}
    sizes: dict[str, int] = {}
    given = iter(tensors)
    protected = {t.untyped_storage().data_ptr() for t in (*tensors, *module.parameters(), *module.buffers())}
    protected |= {t.untyped_storage().data_ptr() for t in captured.constants.values()}
    for node in captured.graph.nodes:
        if node.op == "output":
            return [values[result] for result in node.args[0]]
        if node.op == "placeholder":
            value: Any = next(given, None)
        elif node.op == "get_attr":
            value = captured.constants.get(node.target)
            value = _tensor_of(module, node.target) if value is None else value
        else:
            value = _call(node, values, calls, protected)
        if isinstance(value, Tensor) and value.numel() > _LARGEST:
            raise Unstorable(f"{node.name} is too large a tensor")
        said = node.meta["val"]
        if not (_names(said) <= sizes.keys() or node.op == "placeholder") or not _is_so(said, value, sizes):
            raise Unstorable(f"{node.name} is not what the file says")
        values[node] = value
    raise Unstorable("it has no results")


def _tensor_of(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer, by tables alone: an attribute may be a property."""
    *path, last = name.split(".")
    for step in path:
        found = module._modules.get(step)
        if found is None:
            raise Unstorable(f"the block has no tensor {name}")
        module = found
    parameter = module._parameters.get(last)
    tensor = module._buffers.get(last) if parameter is None else parameter
    if tensor is None:
        raise Unstorable(f"the block has no tensor {name}")
    return tensor


def _call(node: fx.Node, values: dict[fx.Node, Any], calls: Calls, protected: set[int]) -> Any:
    target: Any = node.target
    args: Any = fx.map_arg(node.args, values.__getitem__)
    kwargs: Any = fx.map_arg(node.kwargs, values.__getitem__)
    if not isinstance(target, OpOverload):
        return _scalar(node, target, args, kwargs)
    if operator_of(target) is not None:
        if calls.signature(target, args, kwargs) not in calls.seen:
            raise Unstorable(f"its call {node.name} is none that the module makes")
    elif target in CHANGING and args[0].untyped_storage().data_ptr() in protected:
        raise Unstorable(f"its call {node.name} writes to a tensor of the module or of the call")
    elif target._schema.name.removeprefix("aten::") in _MAKING and _asked(args) > _LARGEST:
        raise Unstorable(f"its call {node.name} asks for too large a tensor")
    return target(*args, **kwargs)


def _scalar(node: fx.Node, target: Any, args: Any, kwargs: Any) -> Any:
    plain = [type(x) in (int, float, bool) for x in args]
    is_item = node.target is not None and getattr(target, "__name__", "") == "getitem"
    known = len(args) == 2 and isinstance(args[0], (tuple, list)) and type(args[1]) is int if is_item else all(plain)
    if kwargs or not known:
        raise Unstorable(f"its call {node.name} is not of sizes")
    value = target(*args)
    if type(value) is int and abs(value) > _MOST:
        raise Unstorable(f"its call {node.name} gives too large a size")
    return value


def _asked(args: Any) -> int:
    flat = [x for arg in args for x in (arg if isinstance(arg, (tuple, list)) else (arg,))]
    sizes = [abs(x) for x in flat if type(x) is int and x]
    tensors = [x.numel() for x in flat if isinstance(x, Tensor)]
    return math.prod(sizes) + sum(tensors)


def _names(said: Any) -> set[str]:
    """The sizes that differ from call to call of which a value says that it depends on them: inputs have to have them."""
    if isinstance(said, tuple):
        return set().union(*map(_names, said))
    sizes = said.shape if isinstance(said, Shaped) else ()
    return {name for size in sizes if type(size) is str for name in _SYMBOL.findall(size)}


def _is_so(said: Any, value: Any, sizes: dict[str, int]) -> bool:
    """Whether a value is what is said of it; a size that differs from call to call has one value by its name."""
    if isinstance(said, Shaped):
        if type(value) is int:
            return said.shape == () and said.dtype is torch.int64
        if not isinstance(value, Tensor) or value.dtype is not said.dtype or value.dim() != len(said.shape):
            return False
        return all(
            (size == found) if type(size) is int else sizes.setdefault(str(size), found) == found
            for size, found in zip(said.shape, value.shape, strict=True)
        )
    if isinstance(said, tuple):
        return (
            isinstance(value, (tuple, list))
            and len(value) == len(said)
            and all(_is_so(s, v, sizes) for s, v in zip(said, value, strict=True))
        )
    return type(said) is type(value) and said == value
