"""Latency of several callables in one run, in turns, so that a change of the machine's load meets all of them."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ConfigError
from .progress import progress_bar

STEADY = 1.5
"""Largest quotient of the quartiles of a ratio that is shown as one number: on a busy machine the median of a few rounds can be
anything, "25.24x" was printed once."""


class Quartiles(NamedTuple):
    """The ends of the middle half of some values."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """The quartiles of at least one value; both are the value of a single one."""
        if len(values) == 1:
            return cls(values[0], values[0])
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, high)

    @property
    def is_steady(self) -> bool:
        """Whether they are close enough for one number to stand for a ratio with them."""
        return self.high <= STEADY * self.low


@dataclass(frozen=True)
class PairedLatency:
    """Times of the rounds, in milliseconds, by name. Every name has the same number of rounds.

    Args:
        milliseconds: the times, by name.
        cases: how many different inputs took turns, from round to round, the same for all names.
        load: the machine's load average of the last minute, when timing began; None where the system has none.
    """

    milliseconds: dict[str, list[float]]
    cases: int = 1
    load: float | None = None

    def median(self, name: str) -> float:
        """Median time of one call, in milliseconds."""
        return statistics.median(self.milliseconds[name])

    def quartiles(self, name: str) -> Quartiles:
        """Quartiles of the times, in milliseconds."""
        return Quartiles.of(self.milliseconds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """How many times `fast` is faster than `slow`: the ratio of their medians. `ratio_quartiles` tells what it is worth."""
        return self.median(slow) / self.median(fast)

    def ratio_quartiles(self, slow: str, fast: str) -> Quartiles:
        """How far the ratio scatters from round to round: the quartiles of the rounds' ratios.

        With several cases each is compared with itself: a long text may gain more than a short one, which is no disturbance. That
        takes two rounds of each case.
        """
        ratios = [s / f for s, f in zip(self.milliseconds[slow], self.milliseconds[fast], strict=True)]
        if self.cases == 1 or len(ratios) < 2 * self.cases:
            return Quartiles.of(ratios)
        usual = [statistics.median(ratios[case :: self.cases]) for case in range(self.cases)]
        low, high = Quartiles.of([ratio / usual[turn % self.cases] for turn, ratio in enumerate(ratios)])
        return Quartiles(low * self.ratio(slow, fast), high * self.ratio(slow, fast))

    def speedup(self, slow: str, fast: str) -> float | None:
        """`ratio`, or None where it scatters so much that no number can be trusted."""
        return self.ratio(slow, fast) if self.ratio_quartiles(slow, fast).is_steady else None

    def medians(self) -> dict[str, float]:
        """Median time of every name, in milliseconds."""
        return {name: self.median(name) for name in self.milliseconds}


def paired_latency(
    calls: dict[str, Callable[[], Any]],
    *,
    rounds: int = 20,
    warmup: int = 3,
    max_seconds: float = 60.0,
    cases: int = 1,
    description: str = "latency",
    clock: Callable[[], float] = time.perf_counter,
) -> PairedLatency:
    """Time `calls` alternately: one call of each per round, the first one rotating.

    Args:
        calls: name to function without arguments.
        rounds: timed calls of each function.
        warmup: calls of each function before timing; they also pay for the lazy capture of fused blocks.
        max_seconds: stop early after this time, but never before three rounds.
        cases: how many inputs the functions go through, one from call to call, over and over.
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
    load = load_average()
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
    return PairedLatency(times, cases, load)


def load_average() -> float | None:
    """How many threads ran or waited to run in the last minute, of all programs; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def speedup_text(ratio: float, quartiles: Sequence[float] | None = None) -> str:
    """How much faster or slower, or that it was not measurable, for tables and cards.

    Args:
        ratio: how many times faster, by the medians.
        quartiles: `PairedLatency.ratio_quartiles`; None where they were not kept.

    Example:
        >>> speedup_text(4.0), speedup_text(0.5), speedup_text(4.0, (3.9, 4.2))
        ('4.00x faster', '2.00x slower', '4.00x faster')
        >>> speedup_text(25.24, (2.9, 41.0))
        'not measurable: 2.90x to 41.00x'
    """
    if quartiles is not None and not Quartiles(*quartiles).is_steady:
        return "not measurable: {:.2f}x to {:.2f}x".format(*quartiles)
    return f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"


def advice(load: float | None, cores: int | None) -> str:
    """What to do about a ratio that was not measurable."""
    busy = "" if load is None else f" (load average {load:.1f}" + (f" on {cores} cores)" if cores else ")")
    return (
        f"not measurable: in the middle half of the rounds the ratio is more than {STEADY} times apart; stop other programs{busy} "
        f"or time more rounds, and measure again"
    )
