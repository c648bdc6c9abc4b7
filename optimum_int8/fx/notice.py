"""Says that making blocks takes long, once it has taken over two seconds: a first call should not look as if it hung."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from .silence import logger

AFTER_SECONDS = 2.0
_TEXT = (
    "compiling the model for its first calls takes over %g s; later calls do not (optimum_int8.warmup does it ahead)"
)


class Notice:
    """Within, blocks of one model are made. Where that adds up to `AFTER_SECONDS`, the log `optimum_int8` says so at INFO, and a terminal.

    One thread at a time is within.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._began = 0.0
        self._timer: threading.Timer | None = None
        self.said = False

    def __enter__(self) -> None:
        self._began = time.monotonic()
        if not self.said:
            self._timer = threading.Timer(max(0.0, AFTER_SECONDS - self._spent), self._say)
            self._timer.daemon = True
            self._timer.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spent += time.monotonic() - self._began
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self) -> None:
        self.said = True
        logger.info(_TEXT, AFTER_SECONDS)
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"optimum_int8: {_TEXT % AFTER_SECONDS}", file=sys.stderr)
