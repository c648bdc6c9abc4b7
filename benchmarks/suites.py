"""What is measured: latency by shape, latency by length, ragged batches, scaling. Each returns one result (`results.py`)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optimum_int8.evaluation.benchmark import describe_architecture

from . import results
from .engines import BASELINE
from .images import ImageWork
from .models import Work, check_shape, find_model, is_image_model, make_model, reference
from .pool import CACHE, Runner, ServingGroup, Worker, check, say, start_engines
from .roofline import floor, measure_ceilings
from .shapes import Shape
from .turns import EngineFailed, Pair, Turn, alternate, ratio_text


class Session:
    """The engines of one run, ready, and what is common to the results.

    Args:
        engines: names; ours (`BASELINE`) is added.
        seconds: time for measuring, which the rows share; converting and compiling come on top.
        options: for `Worker`.
    """

    def __init__(
        self, model: str, engines: Sequence[str], threads: int, seconds: float, cache: Path = CACHE, **options: Any
    ) -> None:
        self.name, self.threads, self.seconds = model, threads, seconds
        self.machine = results.describe(threads)
        config = find_model(model)
        fp32 = make_model(config)
        self.architecture = describe_architecture(fp32)
        self.work = ImageWork.of(fp32) if is_image_model(config) else Work.of(fp32)
        self.expected = reference(fp32, check_shape(config))
        del fp32
        isa = str(self.machine["isa_used"])
        self.limits = measure_ceilings(isa, threads, self.work.weight_bytes, cache)
        names = list(dict.fromkeys([BASELINE, *engines]))
        self.workers, self.engines = start_engines(names, model, threads, self.expected, cache=cache, **options)
        if BASELINE not in self.workers:
            reason = self.engines[BASELINE]["reason"]
            self.close()
            raise EngineFailed(f"ours cannot run, so there is nothing to compare with: {reason}")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, all at once."""
        for worker in self.workers.values():
            worker.stop()
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    def drop(self, engine: str, error: EngineFailed) -> None:
        """An engine that failed while running is left out from here on."""
        say(f"{engine}: {error}")
        self.engines[engine] |= {"status": "skipped", "reason": str(error)}
        self.workers.pop(engine).close()
        if engine == BASELINE:
            raise error

    def runners(self, make: Callable[[Worker], Turn]) -> dict[str, Turn]:
        """`make` of every worker that can do it."""
        made: dict[str, Turn] = {}
        for name in list(self.workers):
            try:
                made[name] = make(self.workers[name])
            except EngineFailed as error:
                self.drop(name, error)
        return made

    def alternate(self, pairs: dict[str, list[Pair]], seconds: float) -> dict[str, list[Pair]]:
        """Measure pairs by engine; returns those of the engines that did not fail, and drops the others.

        Raises:
            EngineFailed: all of them failed, so it is ours that did.
        """
        alternate([pair for group in pairs.values() for pair in group], seconds)
        failures = {name: next((p.failure for p in group if p.failure), None) for name, group in pairs.items()}
        for name, failure in failures.items():
            if failure is not None:
                if all(failures.values()):
                    raise failure
                self.drop(name, failure)
        return {name: group for name, group in pairs.items() if failures[name] is None}

    def result(self, kind: str, rows: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
        """The result as `results.save` takes it."""
        return {
            "schema": results.SCHEMA, "kind": kind, "name": self.name, "model": self.architecture,
            "machine": self.machine, "settings": {"seconds": self.seconds, "threads": self.threads} | settings,
            "baseline": BASELINE, "engines": self.engines, "limits": self.limits, "rows": rows,
        }  # fmt: skip


def measure_latency(session: Session, shapes: Sequence[Shape]) -> dict[str, Any]:
    """Every engine in turns with ours, at every shape."""
    rows, end = [], time.monotonic() + session.seconds
    for i, shape in enumerate(shapes):
        made = {name: [pair] for name, pair in _pairs(session, shape).items()}
        share = max(end - time.monotonic(), 0) / (len(shapes) - i)
        rows.append(_row(session, shape, {name: group[0] for name, group in session.alternate(made, share).items()}))
        for worker in session.workers.values():
            worker.ask("forget", shape)
    return session.result("latency", rows)


def _pairs(session: Session, shape: Shape) -> dict[str, Pair]:
    """Ours beside each other engine; beside itself where there is none."""
    runners = session.runners(lambda worker: Runner(worker, shape))
    ours = runners.pop(BASELINE)
    return {name: Pair(ours, other) for name, other in runners.items()} or {BASELINE: Pair(ours, ours)}


def _row(session: Session, shape: Shape, pairs: dict[str, Pair]) -> dict[str, Any]:
    found = {name: pair.to_dict() for name, pair in pairs.items() if name != BASELINE}
    baseline = statistics.median(first for pair in pairs.values() for first, _ in pair.times)
    limit = floor(session.work, shape, session.limits)
    ratios = ", ".join(f"{name} {ratio_text(values)}" for name, values in found.items())
    say(f"{session.name} {shape}: {baseline:.2f} ms; {ratios}")
    return {
        "shape": str(shape), "tokens": shape.tokens(), "baseline_ms": baseline, "engines": found,
        "limit": limit and limit | {"share": limit["floor_ms"] / baseline},
    }  # fmt: skip


def measure_lengths(session: Session, lengths: Sequence[int]) -> dict[str, Any]:
    """Latency of one sequence against its number of tokens; a cliff is a length that costs more than a longer one.

    Every round goes through all lengths, so that a busy minute is no cliff.
    """
    shapes = [Shape(1, length) for length in sorted(lengths)]
    by_shape = [_pairs(session, shape) for shape in shapes]
    names = [name for name in by_shape[-1] if all(name in pairs for pairs in by_shape)]
    made = session.alternate({name: [pairs[name] for pairs in by_shape] for name in names}, session.seconds)
    rows = [_row(session, shape, {n: group[i] for n, group in made.items()}) for i, shape in enumerate(shapes)]
    result = session.result("lengths", rows)
    curves = {name: [row["engines"][name]["ms"] for row in rows] for name in made if name != BASELINE}
    curves = {BASELINE: [row["baseline_ms"] for row in rows]} | curves
    result["cliffs"] = {name: steepest(sorted(lengths), curve) for name, curve in curves.items()}
    return result


def steepest(lengths: Sequence[int], milliseconds: Sequence[float]) -> dict[str, Any]:
    """How far a curve is from a rising line.

    Returns:
        `over_longer`: most that a length costs over the cheapest longer one, as a factor (1 or less: it only rises), and
        `at`, that length; `over_neighbours`: the same over the line between its two neighbours, and `at_neighbours`.
    """
    over = [(milliseconds[i] / min(milliseconds[i + 1 :]), lengths[i]) for i in range(len(lengths) - 1)]
    bumps = []
    for i in range(1, len(lengths) - 1):
        part = (lengths[i] - lengths[i - 1]) / (lengths[i + 1] - lengths[i - 1])
        line = milliseconds[i - 1] * (1 - part) + milliseconds[i + 1] * part
        bumps.append((milliseconds[i] / line, lengths[i]))
    (longer, at), (bump, at_bump) = max(over, default=(1.0, None)), max(bumps, default=(1.0, None))
    return {"over_longer": longer, "at": at, "over_neighbours": bump, "at_neighbours": at_bump}


def measure_ragged(session: Session, shape: Shape) -> dict[str, Any]:
    """Each engine: a batch of mixed lengths in turns with the full batch."""
    made: dict[str, Pair] = {}
    for name in list(session.workers):
        try:
            made[name] = Pair(Runner(session.workers[name], shape.full()), Runner(session.workers[name], shape))
        except EngineFailed as error:
            session.drop(name, error)
    pairs = session.alternate({name: [pair] for name, pair in made.items()}, session.seconds)
    found = {name: group[0].to_dict() for name, group in pairs.items()}
    tokens, full = shape.tokens(), shape.full().tokens()
    row = {"shape": str(shape), "tokens": tokens, "full_tokens": full, "token_share": tokens / full, "engines": found}
    say(f"{session.name} {shape} over full: " + ", ".join(f"{n} {ratio_text(v, '{:.2f}')}" for n, v in found.items()))
    return session.result("ragged", [row])


MODES = ("one_thread", "two_threads", "two_processes")
"""One process of one thread; one process of two; two processes of one thread each, on cores of their own, at once."""


def measure_scaling(session: Session, shapes: Sequence[Shape], cache: Path = CACHE) -> dict[str, Any]:
    """The same load on one thread, two threads, and two processes at once. `session` has two threads."""
    singles: dict[str, list[Worker]] = {}
    try:
        for name in session.workers:  # all before the first is checked: their imports overlap
            singles[name] = [Worker(name, session.name, 1, first_core=core, cache=cache) for core in (0, 1)]
        for name in list(session.workers):
            try:
                for worker in singles[name]:
                    check(worker, session.expected)
                say(f"{session.engines[name]['title']}: ready twice more, one thread each")
            except EngineFailed as error:
                session.drop(name, error)
        rows, end = [], time.monotonic() + session.seconds
        for i, shape in enumerate(shapes):
            share = max(end - time.monotonic(), 0) / (len(shapes) - i)
            rows.append(_scaling_row(session, singles, shape, share))
        return session.result("scaling", rows, modes=list(MODES))
    finally:
        for workers in singles.values():
            for worker in workers:
                worker.close()


def _scaling_row(session: Session, singles: dict[str, list[Worker]], shape: Shape, seconds: float) -> dict[str, Any]:
    groups: dict[str, tuple[Turn, ...]] = {}
    for name in list(session.workers):
        one, other = singles[name]
        try:
            sets = ([one], [session.workers[name]], [one, other])
            groups[name] = tuple(ServingGroup(workers, shape) for workers in sets)
        except EngineFailed as error:
            session.drop(name, error)
    ours = groups[BASELINE]
    pairs = {n: [Pair(a, b) for a, b in zip(ours, g, strict=True)] for n, g in groups.items() if n != BASELINE}
    pairs = session.alternate(pairs or {BASELINE: [Pair(turn, turn) for turn in ours]}, seconds)
    row: dict[str, Any] = {"shape": str(shape), "engines": {}}
    for mode, name in enumerate(MODES):
        firsts = [first for group in pairs.values() for first, _ in group[mode].times]
        row["engines"].setdefault(BASELINE, {})[name] = {"sequences_per_s": 1e3 / statistics.median(firsts)}
        for engine, group in pairs.items():
            if engine != BASELINE:
                found = group[mode].to_dict()
                row["engines"].setdefault(engine, {})[name] = {
                    "sequences_per_s": 1e3 / found["ms"], "ratio": found["ratio"], "ratio_quartiles": found["ratio_quartiles"],
                }  # fmt: skip
    for engine in row["engines"].values():
        single = engine["one_thread"]["sequences_per_s"]
        engine["gain"] = {mode: engine[mode]["sequences_per_s"] / single for mode in MODES[1:]}
    rates = ", ".join(f"{mode} {row['engines'][BASELINE][mode]['sequences_per_s']:.1f}/s" for mode in MODES)
    say(f"{session.name} {shape}: ours {rates}")
    return row
