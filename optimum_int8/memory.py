"""Giving memory back that would make later calls faster."""

from __future__ import annotations

import gc

from .fx import compilers
from .heap import trim
from .kernels import forget_prepared, library


def release_memory() -> None:
    """Give back the memory that all INT8 models of this process keep for their next calls; the models themselves stay.

    That is the captured graphs, with what was copied or packed for them, and the working memory of each thread. A model works as
    before afterwards and gives the same values; its next call takes as long as a first one. May be called at any time from any thread:
    calls that run now finish on what they have, and their part is given back when they are done.

    A long-running process calls it after it has met many kinds of calls that will not come again, or before it rests.

    Example:
        >>> release_memory()
    """
    for compiler in compilers():
        compiler.release()
    forget_prepared()
    gc.collect()  # graphs refer to themselves
    loaded = library()
    if loaded is not None:
        loaded.release_memory()
    trim(now=True)
