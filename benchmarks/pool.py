"""The parent's side of the workers: starting, checking and calling them."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .child import Child
from .engines import cache_folder, find_engine, missing, version
from .models import check_shape, find_model, relative_error
from .shapes import Shape
from .turns import EngineFailed
from .worker import WorkerSpec, main

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "benchmarks"
"""Converted models, compiled helpers and logs; git ignores it."""

START_SECONDS = 600.0
"""Limit for converting and loading one engine."""

CALL_SECONDS = 300.0
"""Limit for one request, the first call with its compilation included."""


class Worker(Child):
    """One engine in one process."""

    def __init__(
        self,
        engine: str,
        model: str,
        threads: int,
        *,
        first_core: int = 0,
        fixed_shapes: bool = True,
        cache: Path = CACHE,
    ) -> None:
        """Start the process; `load` makes it ready. With fewer threads than cores it is bound to cores from `first_core` on."""
        self.engine, self.model, self.threads = engine, model, threads
        logs = cache / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{model.replace('/', '_')}-{engine}.log"
        folder = str(cache_folder(cache, find_engine(engine), model))
        cores = pick_cores(first_core, threads)
        spec = WorkerSpec(engine, model, folder, threads, cores, fixed_shapes, str(log))
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
        super().__init__(main, spec, log, farewell=("stop", ()))

    def send(self, name: str, *arguments: Any) -> None:
        """Start a request."""
        self.post((name, arguments))

    def ask(self, name: str, *arguments: Any, seconds: float = CALL_SECONDS) -> Any:
        """One request and its answer."""
        self.send(name, *arguments)
        return self.receive(seconds)


class Runner:
    """One engine on one shape; a turn is a few calls in a row."""

    TURN_SECONDS = 0.05
    SLOW_SECONDS = 0.3

    def __init__(self, worker: Worker, shape: Shape) -> None:
        self.worker, self.shape = worker, shape
        worker.ask("bind", shape)
        seconds = worker.ask("run", shape, 0, 1)[0] / 1e3
        if seconds < self.SLOW_SECONDS or worker.engine == "torch_compile":
            seconds = worker.ask("run", shape, 1, 1)[0] / 1e3
        self.seconds = seconds

    def turn(self) -> float:
        """Median milliseconds of this turn's calls. The first call of a turn warms the caches and does not count; for calls so
        long that the caches do not matter there is none."""
        calls = int(min(max(self.TURN_SECONDS / self.seconds, 1), 20))
        warmup = 1 if self.seconds < self.SLOW_SECONDS else 0
        median = statistics.median(self.worker.ask("run", self.shape, warmup, calls))
        self.seconds = median / 1e3
        return median


class ServingGroup:
    """Several processes of an engine that serve at once; a turn is a window of time."""

    def __init__(self, workers: Sequence[Worker], shape: Shape) -> None:
        self.workers, self.shape = workers, shape
        seconds = [Runner(worker, shape).seconds for worker in workers]
        self.window = min(max(6 * max(seconds), 0.3), 4.0)

    def turn(self) -> float:
        """Milliseconds per sequence, over all processes (their rates add up)."""
        start = time.monotonic() + 0.02 + self.window / 6  # each makes one call before
        for worker in self.workers:
            worker.send("serve", self.shape, start, self.window)
        rates = [
            count * self.shape.batch / elapsed
            for count, elapsed in [worker.receive(CALL_SECONDS) for worker in self.workers]
        ]
        return 1e3 / sum(rates)


def start_engines(
    names: Sequence[str], model: str, threads: int, expected: tuple[torch.Tensor, torch.Tensor], **options: Any
) -> tuple[dict[str, Worker], dict[str, dict[str, Any]]]:
    """Start, load and check engines one after the other.

    Args:
        expected: FP32 output on `check_shape`, and its mask.

    Returns:
        The workers that can be timed, and what the results say of every engine: `status` is `ok`, or `skipped` with `reason`.
    """
    workers: dict[str, Worker] = {}
    notes: dict[str, dict[str, Any]] = {}
    started = {name: Worker(name, model, threads, **options) for name in names if not missing(find_engine(name))}
    for name in names:
        engine, worker = find_engine(name), started.get(name)
        note: dict[str, Any] = {"title": engine.TITLE, "versions": {d: version(d) for d in engine.REQUIRES}}
        notes[name] = note
        begin = time.monotonic()
        reason = missing(engine)
        if worker is not None:
            try:
                note["relative_error"] = check(worker, expected)
                note["ready_after_s"] = round(time.monotonic() - begin, 1)
            except EngineFailed as error:
                reason = str(error)
        if worker is not None and reason is None:
            workers[name] = worker
            note["status"] = "ok"
            say(f"{engine.TITLE}: ready, relative error {note['relative_error']:.2g}")
            continue
        note |= {"status": "skipped", "reason": reason}
        if worker is not None:
            worker.close()
        say(f"{engine.TITLE}: skipped: {reason}")
    return workers, notes


def check(worker: Worker, expected: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Convert, load, and compare the output with FP32. Raises EngineFailed if it is off."""
    worker.ask("prepare", seconds=START_SECONDS)
    worker.ask("load", seconds=START_SECONDS)
    shape = check_shape(find_model(worker.model))
    output = torch.as_tensor(worker.ask("output", shape))
    worker.ask("forget", shape)
    if output.shape != expected[0].shape:
        raise EngineFailed(f"its output has shape {tuple(output.shape)}, FP32's {tuple(expected[0].shape)}")
    error, limit = relative_error(output, *expected), find_engine(worker.engine).LIMIT
    if not error <= limit:
        raise EngineFailed(f"its output is off: relative error {error:.3g} against FP32, at most {limit:g} is accepted")
    return error


def say(text: str) -> None:
    """One line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def pick_cores(first: int, threads: int) -> tuple[int, ...] | None:
    """The cores for a process with fewer threads than there are cores; None where it gets all, or cannot be bound."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    if threads >= len(allowed):
        return None
    return tuple(allowed[(first + i) % len(allowed)] for i in range(threads))
