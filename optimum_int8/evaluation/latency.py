"""Latency of several callables in one run, in turns, so that a change of the machine's load meets all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .progress import progress_bar


@dataclass(frozen=True)
class PairedLatency:
    """Times of the rounds, in milliseconds, by name. Every name has the same number of rounds."""

    milliseconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Median time of one call, in milliseconds."""
        return statistics.median(self.milliseconds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """How many times `fast` is faster than `slow`: the ratio of their medians."""
        return self.median(slow) / self.median(fast)

    def medians(self) -> dict[str, float]:
        """Median time of every name, in milliseconds."""
        return {name: self.median(name) for name in self.milliseconds}


def paired_latency(
    calls: dict[str, Callable[[], Any]],
    *,
    rounds: int = 20,
    warmup: int = 3,
    max_seconds: float = 60.0,
    description: str = "latency",
    clock: Callable[[], float] = time.perf_counter,
) -> PairedLatency:
    """Time `calls` alternately: one call of each per round, the first one rotating.

    Args:
        calls: name to function without arguments.
        rounds: timed calls of each function.
        warmup: calls of each function before timing; they also pay for the lazy capture of fused blocks.
        max_seconds: stop early after this time, but never before three rounds.
        clock: seconds; replaced in tests.

    Raises:
        ConfigError: no calls, or `rounds` below 1.
    """
    if not calls or rounds < 1 or warmup < 0:
        found = f"{len(calls)} functions, {rounds} rounds, {warmup} warm-up calls"
        raise ConfigError(f"{found}; expected at least one function and one round")
    names = list(calls)
    for _ in range(warmup):
        for name in names:
            calls[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    start = clock()
    collecting = gc.isenabled()
    gc.disable()  # a collection inside one call would be charged to that call alone
    try:
        for turn in progress_bar(range(rounds), description):
            for offset in range(len(names)):
                name = names[(turn + offset) % len(names)]
                before = clock()
                calls[name]()
                times[name].append((clock() - before) * 1e3)
            if turn >= 2 and clock() - start > max_seconds:
                break
    finally:
        if collecting:
            gc.enable()
    return PairedLatency(times)
