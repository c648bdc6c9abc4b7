"""Free memory of the C library, given back to the system."""

from __future__ import annotations

import ctypes
import functools
import sys
import time
from collections.abc import Callable

_SHARE = 100
"""How much longer than it took the time to the next `trim` is: up to 30 ms where a large model was captured."""

_due = 0.0


def trim(*, now: bool = False) -> None:
    """Give back pages that nothing uses. glibc keeps what was freed below its highest allocation: after a load as much as the model has.

    Args:
        now: also soon after another time. Without it a hundredth of the time is spent at most.
    """
    global _due
    start = time.perf_counter()
    if now or start >= _due:
        _malloc_trim()(0)
        end = time.perf_counter()
        _due = end + _SHARE * (end - start)


@functools.cache
def _malloc_trim() -> Callable[[int], object]:
    """The function of glibc; elsewhere one that does nothing."""
    if sys.platform == "linux":
        found = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if found is not None:
            return found
    return bool
