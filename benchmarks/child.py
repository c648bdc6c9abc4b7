"""The parent's side of a process that answers requests: `("ok", value)`, or `("failed", reason)`."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .turns import EngineFailed


class Child:
    """One engine in one process.

    Args:
        serve: what the process runs: it takes its end of the pipe, and `spec`.
        log: both outputs of the process.
        farewell: the message that ends it.
    """

    def __init__(self, serve: Callable[[Connection, Any], None], spec: Any, log: Path, farewell: Any) -> None:
        self.log = log
        self._farewell = farewell
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, spec), daemon=True)
        self._process.start()
        theirs.close()

    def post(self, message: Any) -> None:
        """Start a request. Raises EngineFailed if nobody is there."""
        try:
            self._connection.send(message)
        except OSError as error:
            raise EngineFailed(f"its process is gone: see {self.log.name}") from error

    def receive(self, seconds: float | None = None) -> Any:
        """The answer of the request. Raises EngineFailed if there is none (within so many seconds), or the engine failed."""
        try:
            if not self._connection.poll(seconds):
                self.close(patience=0.0)
                raise EngineFailed(f"no answer within {seconds:.0f} s")
            status, value = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise EngineFailed(
                f"its process ended (exit code {self._process.exitcode}): see {self.log.name}"
            ) from error
        if status != "ok":
            raise EngineFailed(value)
        return value

    def stop(self) -> None:
        """Tell the process to end, without waiting for it."""
        with contextlib.suppress(OSError):
            self._connection.send(self._farewell)

    def close(self, patience: float = 5.0) -> None:
        """End the process."""
        self.stop()
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
