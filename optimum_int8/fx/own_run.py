"""One run of a module's own code on copies of a call's arguments, for a graph to be compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .arguments import Key, NotCapturable, flatten_output, rebuild
from .caches import find_cache
from .sources import written_state


class OwnError(Exception):
    """The module's own code raised, for these arguments."""


class Ran(Exception):
    """The module's own code ran and changed the module: its result is the call's, since it must not run again."""

    def __init__(self, result: Any) -> None:
        self.result = result


def run_own(
    module: nn.Module, forward: Callable[..., Any], key: Key, tensors: list[Tensor], layer: int | None
) -> tuple[Any, list[Tensor]]:
    """Structure and tensors of what the module's own code gives.

    Args:
        tensors: copies of the call's.

    Raises:
        OwnError: the module raised.
        Ran: it changed tensors of its own.
        NotCapturable: it writes to its arguments, or its result is of no form that a graph can give.
    """
    args, kwargs = rebuild(key, tensors, layer)
    state = written_state(module)
    cache = find_cache([*args, *kwargs.values()])
    versions = [x._version for x in tensors]  # a copy made of a tensor of inference mode does not begin at 0
    lists = [(x, list(x)) for x in (*args, *kwargs.values()) if type(x) is list]
    try:
        expected = forward(*args, **kwargs)
    except Exception as error:
        raise OwnError from error
    written = [x._version for x in tensors] != versions
    if written or any(list(map(id, x)) != list(map(id, old)) for x, old in lists):
        raise NotCapturable("it writes to its arguments")
    if cache is None and state != written_state(module):
        raise Ran(expected)
    return flatten_output(expected, cache, tensors, layer)
