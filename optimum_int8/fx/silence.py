"""A first call says nothing of torch's internals: what fails while a block is captured only means that the module's own code runs."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from ..torch_private import print_of_export

logger = logging.getLogger("optimum_int8")
"""Says at DEBUG what became a block and what did not."""

_quiet_threads: set[int] = set()


class _NotFrom(logging.Filter):
    """Drops the records of one thread."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self.thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self.thread


class _OfThisThread(type):
    """`warnings` has one list of filters for all threads, and asks of each whether a warning is of its category."""

    def __subclasscheck__(cls, category: type) -> bool:
        return threading.get_ident() in _quiet_threads


class _FromQuietThread(Warning, metaclass=_OfThisThread):
    """The category of every warning that a quiet thread gives, and of none that another does."""


def _print(*args: Any, **kwargs: Any) -> None:
    """What `torch.export` prints: the graph up to a branch that depends on values, on the standard error. Nothing from quiet threads."""
    if threading.get_ident() not in _quiet_threads:
        print(*args, **kwargs)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, this thread's warnings, log records and printed graphs of torch go nowhere; those of others do."""
    thread = threading.get_ident()
    is_outermost = thread not in _quiet_threads
    silent = _NotFrom(thread)
    print_of_export(_print)
    warnings.simplefilter(
        "ignore", _FromQuietThread
    )  # stays: of other threads, and later of this one, it holds for nothing
    _quiet_threads.add(thread)
    loggers = [x for name, x in list(logging.root.manager.loggerDict.items()) if _is_torchs(name, x)]
    for one in loggers:
        one.addFilter(silent)  # type: ignore[union-attr]
    try:
        yield
    finally:
        if is_outermost:
            _quiet_threads.discard(thread)
        for one in loggers:
            one.removeFilter(silent)  # type: ignore[union-attr]


def _is_torchs(name: str, one: object) -> bool:
    return isinstance(one, logging.Logger) and (name == "torch" or name.startswith("torch."))
