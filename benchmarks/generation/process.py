"""An engine in a process of its own: the threads of one library slow down another's in the same process.

The child imports nothing heavy before it has set what libraries read when they are loaded.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..child import Child
from ..turns import EngineFailed
from ..worker import redirect, wait_until_quiet
from .rows import Row

if TYPE_CHECKING:
    from .models import Generated


@dataclass(frozen=True)
class Spec:
    """What a process is started with.

    Args:
        folder: for converted models.
        cores: it is bound to them; None for all.
        peers: where `pip install --target` put what the engine requires.
        log: both outputs of the process, those of native code too.
    """

    engine: str
    model: str
    folder: str
    threads: int
    cores: tuple[int, ...] | None
    peers: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class Answer:
    """One call, seen from inside.

    Args:
        tokens: new tokens of each prompt.
        ms: of what the row asks for: the call, or a step.
        processor_s: processor time that the process took for it.
        remarks: the engine's, for this figure.
    """

    tokens: list[list[int]]
    ms: float
    processor_s: float
    remarks: str


def serve(connection: Connection, spec: Spec) -> None:
    """Ready, then one call for each row that is asked for, until None; a failure is answered, never raised."""
    redirect(spec.log)
    if spec.cores is not None:
        os.sched_setaffinity(0, spec.cores)  # before any library counts the cores
    os.environ["OMP_NUM_THREADS"] = str(spec.threads)
    sys.path.extend(spec.peers)  # behind the environment: what the project has stays as it is
    try:
        loaded = _load(spec)
    except Exception as error:  # engines raise whatever they like; the reason goes into the result
        connection.send(("failed", _describe(error)))
        return
    connection.send(("ok", None))
    while (row := connection.recv()) is not None:
        try:
            connection.send(("ok", call(loaded, row)))
        except Exception as error:
            connection.send(("failed", _describe(error)))


def _load(spec: Spec) -> Any:
    import torch

    from .engines import find_engine
    from .models import Job

    torch.set_num_threads(spec.threads)
    return find_engine(spec.engine).load(Job(spec.model, Path(spec.folder), spec.threads))


def _describe(error: Exception) -> str:
    text = str(error) if isinstance(error, EngineFailed) else f"{type(error).__name__}: {error}"
    print(text, file=sys.stderr, flush=True)
    return " ".join(text.split())[:300]


def call(loaded: Any, row: Row) -> Answer:
    """One call, and the time that the row asks for. Raises EngineFailed where tokens are lacking."""
    used = time.process_time()
    found = loaded.run(row)
    _check_count(found, row)
    if row.kind != "decode":
        milliseconds = found.total_ms
    else:
        first = found.first_ms
        if first is None:  # the engine does not tell, so its first token is timed alone
            first = loaded.run(Row("prefill", row.batch, row.context)).total_ms
        milliseconds = (found.total_ms - first) / (row.new - 1)
    wait_until_quiet()
    return Answer(found.tokens, milliseconds, time.process_time() - used, found.remarks)


def _check_count(found: Generated, row: Row) -> None:
    counts = [len(tokens) for tokens in found.tokens]
    if counts != [row.new] * row.batch:
        raise EngineFailed(f"made {counts} tokens instead of {row.new} for each of {row.batch}")


class Process(Child):
    """The parent's side. Raises EngineFailed with the engine's word when it cannot do it."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(serve, spec, Path(spec.log), farewell=None)
        self.spec = spec
        self.receive()

    def call(self, row: Row) -> Answer:
        """One call."""
        self.post(row)
        answer: Answer = self.receive()
        return answer


def start(
    engine: str, model: str, threads: int, cores: tuple[int, ...] | None, folder: Path, peers: Sequence[str]
) -> Process:
    """The process of an engine, ready.

    Args:
        folder: for converted models and logs.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return Process(Spec(engine, model, str(folder), threads, cores, tuple(peers), str(logs / f"{engine}.log")))
