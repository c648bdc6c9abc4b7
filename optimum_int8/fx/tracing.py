"""`torch.export` at less cost."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator

from ..torch_private import import_export, lean_export


@contextlib.contextmanager
def cheap_tracing(seconds: float = math.inf) -> Iterator[None]:
    """Within, exports of this thread record shapes and types of values only, stop after so much processor time (see `lean_export`), and
    garbage waits."""
    import_export()
    with _no_collection(), lean_export(seconds):
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
