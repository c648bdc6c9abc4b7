"""`torch.export` at less cost."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from ..torch_private import import_export, lean_export

import_export()


@contextlib.contextmanager
def cheap_tracing() -> Iterator[None]:
    """Within, exports of this thread record shapes and types of values only (see `lean_export`), and garbage waits."""
    with _no_collection(), lean_export():
        yield


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of short-lived objects make the collector look through all that lives, over and over.

    The collector is one for all threads: theirs waits too. Objects without cycles are freed as ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
