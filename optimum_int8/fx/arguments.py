"""A call's arguments as a flat list of tensors and a hashable description of the rest: what a captured graph depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

Key = tuple[Any, ...]

_TENSOR = "tensor"
_SCALARS = (bool, int, float, str)


class NotCapturable(Exception):
    """Why a call cannot become a graph."""


def flatten(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Key, list[Tensor]]:
    """The guard key and the tensors of a call.

    The key holds dtype, rank and broadcast axes of each tensor, the value of each scalar, and which arguments are None.

    Raises:
        NotCapturable: an argument is an object that may hold state, such as a KV cache.
    """
    tensors: list[Tensor] = []
    positional = tuple([_describe(x, tensors) for x in args])
    return (positional, tuple([(name, _describe(x, tensors)) for name, x in kwargs.items()])), tensors


def flatten_output(output: Any) -> tuple[Key, list[Tensor]]:
    """Structure and tensors of a result: a tensor, or a tuple of tensors and None.

    Raises:
        NotCapturable: the result is something else, such as a `ModelOutput`.
    """
    if not (isinstance(output, Tensor) or type(output) is tuple):
        raise NotCapturable(f"its result is a {type(output).__name__}, not tensors")
    tensors: list[Tensor] = []
    return (_describe(output, tensors, False),), tensors


def _describe(x: Any, tensors: list[Tensor], is_input: bool = True) -> Any:
    if isinstance(x, Tensor):
        tensors.append(x)
        # sizes of a result are symbols while it is captured
        return (_TENSOR, x.dtype, x.dim(), _broadcasts(x, tensors[0]) if is_input else None)
    if x is None:
        return None
    if type(x) in _SCALARS:
        return (type(x), x)
    if type(x) in (tuple, list):
        return (type(x), tuple([_describe(item, tensors, is_input) for item in x]))
    raise NotCapturable(f"an argument is a {type(x).__name__}, which may hold state")


def _broadcasts(x: Tensor, first: Tensor) -> tuple[bool, ...]:
    """Which axes of an argument broadcast: how a graph reads them depends on it.

    An axis of size 1 broadcasts only where the batch (or the length) is not 1 too. A graph that was captured on a single token, or on
    a batch of one, therefore never serves a call in which such an axis turns out to stand still.
    """
    if x.dim() < 2:
        return ()
    one = [bool(size == 1) for size in x.shape]  # not what `==` gives: sizes are symbols while a model is exported
    batch, length = bool(first.shape[0] == 1), first.dim() > 1 and bool(first.shape[1] == 1)
    if len(one) == 4:
        return (one[0] != batch, one[1], one[2] != length, one[3] != length)
    return (one[0] != batch, one[1] != length)


def rebuild(key: Key, tensors: Sequence[Tensor]) -> tuple[list[Any], dict[str, Any]]:
    """The inverse of `flatten`."""
    source = iter(tensors)
    positional, named = key
    args = [_restore(item, source) for item in positional]
    return args, {name: _restore(item, source) for name, item in named}


def rebuild_output(key: Key, tensors: Sequence[Tensor]) -> Any:
    """The inverse of `flatten_output`."""
    return _restore(key[0], iter(tensors))


def _restore(item: Any, source: Any) -> Any:
    if item is None:
        return None
    if item[0] == _TENSOR:
        return next(source)
    if item[0] in (tuple, list):
        return item[0](_restore(x, source) for x in item[1])
    return item[1]
