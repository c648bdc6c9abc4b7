"""One process per engine: it loads the engine, and calls it only when told to.

Engines bring thread pools of their own, whose threads spin for a while after a call. Before it answers, a worker waits until
its process uses no more processor time, so that nobody's spinning is charged to the next one's turn.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .shapes import Shape

QUIET_SECONDS = 0.002
"""A process is quiet when within this time ..."""

QUIET_SHARE = 0.1
"""... it used less than this share of one core."""

PATIENCE_SECONDS = 1.0
"""Longest wait for quiet; some pools (CTranslate2's, with KMP_BLOCKTIME) can be set to spin for ever."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is started with."""

    engine: str
    model: str
    folder: str
    threads: int
    cores: tuple[int, ...] | None = None
    fixed_shapes: bool = True
    log: str | None = None


def main(connection: Connection, spec: WorkerSpec) -> None:
    """Serve requests until told to stop; a failure is answered, never raised."""
    if spec.log is not None:
        redirect(spec.log)
    if spec.cores is not None:
        os.sched_setaffinity(0, spec.cores)  # before any library counts the cores
    os.environ["OMP_NUM_THREADS"] = str(spec.threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    server: Server | None = None
    trouble: Exception | None = None
    try:
        server = Server(spec)  # before the first request: the imports of all workers overlap
    except Exception as error:
        trouble = error
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        if name == "stop":
            return
        try:
            if server is None:
                raise trouble or RuntimeError("not started")
            connection.send(("ok", getattr(server, name)(*arguments)))
        except Exception as error:  # engines raise whatever they like; the reason goes into the result
            sys.stderr.write(f"{name}{arguments}: {error!r}\n")
            connection.send(("failed", " ".join(f"{type(error).__name__}: {error}".split())[:300]))


def redirect(log: str) -> None:
    """Both outputs to a file, those of native code too."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


class Server:
    """The requests."""

    def __init__(self, spec: WorkerSpec) -> None:
        import torch

        from .engines import find_engine
        from .models import Job

        torch.set_num_threads(spec.threads)
        self.engine = find_engine(spec.engine)
        self.job = Job(spec.model, Path(spec.folder), spec.threads, spec.fixed_shapes)
        self.calls: dict[Shape, Callable[[], Any]] = {}
        self.loaded: Any = None

    def prepare(self) -> None:
        """Convert the model where that is not done yet."""
        self.job.folder.mkdir(parents=True, exist_ok=True)
        self.engine.prepare(self.job)

    def load(self) -> None:
        """Make the engine ready."""
        self.loaded = self.engine.load(self.job)

    def bind(self, shape: Shape) -> None:
        """Make ready what a shape needs."""
        from .models import make_inputs

        if shape not in self.calls:
            self.calls[shape] = self.loaded.bind(make_inputs(self.job.config(), shape))

    def output(self, shape: Shape) -> Any:
        """`last_hidden_state` as a NumPy array."""
        self.bind(shape)
        return self.loaded.output(self.calls[shape]()).numpy()

    def run(self, shape: Shape, warmup: int, calls: int) -> list[float]:
        """Milliseconds of each of `calls` calls after `warmup` others."""
        call = self.calls[shape]
        for _ in range(warmup):
            call()
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        wait_until_quiet()
        return times

    def serve(self, shape: Shape, start: float, seconds: float) -> tuple[int, float]:
        """Call from the moment `start` (of `time.monotonic`, the same in all processes) on, for `seconds`.

        Returns the number of calls and the seconds that they took.
        """
        call = self.calls[shape]
        call()
        time.sleep(max(0.0, start - time.monotonic()))
        count, begin = 0, time.monotonic()
        while time.monotonic() - begin < seconds:
            call()
            count += 1
        elapsed = time.monotonic() - begin
        wait_until_quiet()
        return count, elapsed

    def forget(self, shape: Shape) -> None:
        """Free what was made ready for a shape."""
        self.calls.pop(shape, None)


def wait_until_quiet(patience: float = PATIENCE_SECONDS) -> bool:
    """Wait until the threads of this process sleep; False if they would not."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        used, begin = time.process_time(), time.monotonic()
        time.sleep(QUIET_SECONDS)
        if time.process_time() - used < QUIET_SHARE * (time.monotonic() - begin):
            return True
    return False
