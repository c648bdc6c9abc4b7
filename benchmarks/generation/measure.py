"""Every engine in turns with ours, row by row, next to the bandwidth of memory measured in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optimum_int8.evaluation.benchmark import describe_architecture

from .. import results
from ..pool import CACHE, pick_cores, say
from ..roofline import measure_bandwidth
from ..turns import EngineFailed, Pair, alternate, ratio_text
from . import processor
from .agreement import CHECK, LIMIT, largest_gap
from .engines import BASELINE, NAMES, find_engine, missing, version
from .models import make, step_weights
from .process import Process, start
from .rows import MODELS, Row

LARGE = 1 << 29
"""Bytes that are read over and over to know the bandwidth of memory: of a working set of 134 MB, 32 MB of cache gave between 42 and
77 GB/s, of this one 35."""


@dataclass
class Calls:
    """One engine on one row; a turn is one call, made again while other processes had a share in the machine.

    Args:
        patience: seconds after which the least disturbed call is taken.
    """

    engine: str
    process: Process
    row: Row
    patience: float
    remarks: str = ""
    disturbed: list[float] = field(default_factory=list)

    def turn(self) -> float:
        """Milliseconds of what the row asks for."""
        found: list[tuple[float, float]] = []
        end = time.monotonic() + self.patience
        while True:
            with processor.Watch() as watch:
                answer = self.process.call(self.row)
            self.remarks = answer.remarks
            found.append((watch.others(answer.processor_s), answer.ms))
            if found[-1][0] <= processor.QUIET or time.monotonic() > end:
                share, milliseconds = min(found)
                self.disturbed.append(share)
                return milliseconds


@dataclass(frozen=True)
class Options:
    """How a run is made.

    Args:
        threads: of a call.
        seconds: for measuring one model; the rows share it.
        patience: seconds that a turn may take longer because other processes run.
        engines: names; ours is added.
        peers: folders that `pip install --target` made.
        cache: for converted models, compiled helpers and logs.
    """

    threads: int = 2
    seconds: float = 300.0
    patience: float = 5.0
    engines: Sequence[str] = NAMES
    peers: Sequence[str] = ()
    cache: Path = CACHE


def measure(name: str, options: Options, rows: Sequence[Row] = ()) -> dict[str, Any]:
    """One model: a result as `results.save` takes it.

    Args:
        rows: those of `MODELS` where there are none.

    Raises:
        EngineFailed: ours cannot do it.
    """
    machine = results.describe(options.threads)
    model = make(name)
    weights = step_weights(model)
    architecture = describe_architecture(model)
    processes, notes = start_engines(name, model, options)
    del model
    made: list[dict[str, Any]] = []
    bandwidths: list[float] = []
    chosen = list(rows or MODELS[name])
    end = time.monotonic() + options.seconds
    try:
        for i, row in enumerate(chosen):
            bandwidths.append(measure_bandwidth(machine["isa_used"], options.threads, LARGE, options.cache))
            share = max(end - time.monotonic(), 0.0) / (len(chosen) - i)
            made.append(measure_row(name, row, processes, share, options.patience))
    finally:
        for process in processes.values():
            process.close()
    bandwidth = {"read_bytes": statistics.median(bandwidths), "read_bytes_least": min(bandwidths)}
    settings: dict[str, Any] = {"seconds": options.seconds, "threads": options.threads, "patience": options.patience}
    settings["disturbed"] = max((row["disturbed"] for row in made), default=0.0)
    return {
        "schema": results.SCHEMA, "kind": "generation", "name": name, "model": architecture, "machine": machine,
        "settings": settings, "baseline": BASELINE, "engines": notes, "rows": made,
        "limits": {"step_weights": weights, "working_set": LARGE, **bandwidth},
    }  # fmt: skip


def start_engines(name: str, model: Any, options: Options) -> tuple[dict[str, Process], dict[str, dict[str, Any]]]:
    """Start the engines one after the other, and compare the tokens of each with FP32's logits.

    Returns:
        The processes that can be timed, and what the result says of every engine: `status` is `ok`, or `skipped` with `reason`.
    """
    processes: dict[str, Process] = {}
    notes: dict[str, dict[str, Any]] = {}
    folder = options.cache / "generation" / f"{name}-torch_{version('torch')}-transformers_{version('transformers')}"
    cores = pick_cores(0, options.threads)
    for engine in dict.fromkeys([BASELINE, *options.engines]):
        part = find_engine(engine)
        versions = {required: version(required, options.peers) for required in part.REQUIRES}
        note: dict[str, Any] = {"title": part.TITLE, "versions": versions, "bytes_per_weight": part.BYTES_PER_WEIGHT}
        notes[engine] = note
        process = None
        try:
            if reason := missing(part, options.peers):
                raise EngineFailed(reason)
            process = start(engine, name, options.threads, cores, folder, options.peers)
            note["gap"] = largest_gap(model, process.call(CHECK).tokens)
            if note["gap"] > LIMIT:
                raise EngineFailed(
                    f"its tokens are off: {note['gap']:.2f} deviations below FP32's best, at most {LIMIT}"
                )
        except EngineFailed as error:
            if process is not None:
                process.close()
            if engine == BASELINE:
                raise
            note |= {"status": "skipped", "reason": str(error)}
            say(f"{name}, {part.TITLE}: left out: {error}")
            continue
        note["status"] = "ok"
        processes[engine] = process
        say(f"{name}, {part.TITLE}: ready")
    return processes, notes


def measure_row(name: str, row: Row, processes: dict[str, Process], seconds: float, patience: float) -> dict[str, Any]:
    """One row of the result; an engine that cannot do it stands in `left_out`, with its word."""
    left_out: dict[str, str] = {}
    calls: dict[str, Calls] = {}
    for engine, process in processes.items():
        try:
            process.call(row)  # captures, compiles
            calls[engine] = Calls(engine, process, row, patience)
        except EngineFailed as error:
            if engine == BASELINE:
                raise
            left_out[engine] = str(error)
            say(f"{name} {row}, {engine}: {error}")
    ours = calls[BASELINE]
    pairs = {engine: Pair(ours, other) for engine, other in calls.items() if engine != BASELINE}
    pairs = pairs or {BASELINE: Pair(ours, ours)}
    alternate(list(pairs.values()), seconds)
    left_out |= {engine: str(pair.failure) for engine, pair in pairs.items() if pair.failure is not None}
    pairs = {engine: pair for engine, pair in pairs.items() if pair.failure is None}
    if not pairs:
        raise EngineFailed(f"nothing could be measured of {row}: {left_out}")
    firsts = [first for pair in pairs.values() for first, _ in pair.times]
    found = {
        "shape": str(row), "kind": row.kind, "tokens": row.tokens,
        "baseline_ms": statistics.median(firsts), "baseline_best_ms": min(firsts), "left_out": left_out,
        "engines": {engine: _entry(pair, calls[engine]) for engine, pair in pairs.items() if engine != BASELINE},
        "disturbed": max(share for engine in [BASELINE, *pairs] for share in calls[engine].disturbed),
    }  # fmt: skip
    _say_row(name, found)
    return found


def _entry(pair: Pair, calls: Calls) -> dict[str, Any]:
    """What a result says of an engine on a row."""
    best = {"best_ms": min(second for _, second in pair.times)}
    return pair.to_dict() | best | ({"remarks": calls.remarks} if calls.remarks else {})


def _say_row(name: str, row: dict[str, Any]) -> None:
    rate = row["tokens"] / row["baseline_ms"] * 1e3
    others = ", ".join(f"{engine} {ratio_text(values)}" for engine, values in row["engines"].items())
    say(f"{name} {row['shape']}: {rate:.1f} tokens/s; {others}")
