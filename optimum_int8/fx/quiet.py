"""A first call says nothing of torch's internals: what fails while a block is captured only means that the module's own code runs."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

logger = logging.getLogger("optimum_int8")
"""Says at DEBUG what became a block and what did not."""


class _NotFrom(logging.Filter):
    """Drops the records of one thread."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self.thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self.thread


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, this thread's warnings and log records of torch go nowhere; those of others do."""
    silent = _NotFrom(threading.get_ident())
    loggers = [x for name, x in list(logging.root.manager.loggerDict.items()) if _is_torchs(name, x)]
    for one in loggers:
        one.addFilter(silent)  # type: ignore[union-attr]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one in loggers:
            one.removeFilter(silent)  # type: ignore[union-attr]


def _is_torchs(name: str, one: object) -> bool:
    return isinstance(one, logging.Logger) and (name == "torch" or name.startswith("torch."))
