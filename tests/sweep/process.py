"""A process per class, forked from one that has imported everything; a crash or a hang is a result."""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.sweep.families import Pair

Work = Callable[[Pair, Callable[[dict[str, Any]], None]], None]
"""Checks a pair, and reports what it has found so far as often as it likes."""

MEMORY = 6 << 30


def run_all(pairs: Iterable[Pair], work: Work, jobs: int = 1, timeout: float = 120.0) -> Iterator[dict[str, Any]]:
    """The result of each pair, as it comes."""
    waiting = list(pairs)
    running: dict[int, tuple[Pair, Path, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        while waiting or running:
            while waiting and len(running) < jobs:
                pair = waiting.pop(0)
                path = Path(scratch) / f"{time.monotonic_ns()}.json"
                running[_start(pair, work, path)] = (pair, path, time.monotonic())
            for pid, (pair, path, began) in list(running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                late = time.monotonic() - began > timeout
                if not ended and late:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                if ended or late:
                    del running[pid]
                    yield _result(pair, path, status, late and not ended, time.monotonic() - began)
            time.sleep(0.02)


def _start(pair: Pair, work: Work, path: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)

        def report(result: dict[str, Any]) -> None:
            new = path.with_suffix(".new")
            new.write_text(json.dumps(result))
            new.replace(path)

        work(pair, report)
    except BaseException as error:
        path.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
        os._exit(1)
    os._exit(0)


def _result(pair: Pair, path: Path, status: int, late: bool, seconds: float) -> dict[str, Any]:
    result: dict[str, Any] = {
        "key": pair.key, "model_type": pair.model_type, "class": pair.class_name, "family": pair.family, "task": pair.task,
    }  # fmt: skip
    if path.exists():
        result |= json.loads(path.read_text())
    error = path.with_suffix(".error")
    if late:
        result["process"] = f"stopped after {seconds:.0f} s"
    elif status and error.exists():
        result["process"] = error.read_text()
    elif status:
        result["process"] = f"ended by signal {status & 127}" if status & 127 else f"exit status {status >> 8}"
    result["seconds"] = round(seconds, 1)
    return result
