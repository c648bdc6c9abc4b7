"""Turns: two things are measured alternately, so that a change of the machine's load meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

STEADY = 1.5
"""Largest quotient of the quartiles of a ratio that is shown as one number: on a busy machine the median of a few rounds can be
anything, "25.24x" was printed once."""

UNSTEADY = "unsteady"
"""Marks what is shown in place of such a ratio."""


class EngineFailed(Exception):
    """An engine could not do what was asked; the reason is for the results."""


class Turn(Protocol):
    """Anything with a turn."""

    def turn(self) -> float:
        """A time, in milliseconds."""


@dataclass
class Pair:
    """Two things, and their times, round by round."""

    first: Turn
    second: Turn
    times: list[tuple[float, float]] = field(default_factory=list)
    failure: EngineFailed | None = None

    def ratios(self) -> list[float]:
        """How many times longer the second took, per round."""
        return [second / first for first, second in self.times]

    def to_dict(self) -> dict[str, Any]:
        """Medians of both, and the median and quartiles of the ratios of adjacent turns.

        The ratio is taken within rounds: it is not disturbed by a load that changes between them, as the ratio of medians is.
        """
        ratios = self.ratios()
        quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
        return {
            "first_ms": statistics.median(first for first, _ in self.times),
            "ms": statistics.median(second for _, second in self.times),
            "ratio": statistics.median(ratios),
            "ratio_quartiles": [quartiles[0], quartiles[2]],
            "rounds": len(ratios),
        }


def ratio_text(found: dict[str, Any], form: str = "{:.2f}x") -> str:
    """The ratio of `Pair.to_dict`, or its quartiles where they are so far apart that one number would mislead.

    Example:
        >>> ratio_text({"ratio": 2.04, "ratio_quartiles": [1.9, 2.1]})
        '2.04x'
        >>> ratio_text({"ratio": 25.24, "ratio_quartiles": [2.9, 41.0]})
        'unsteady, 2.90x to 41.00x'
    """
    if is_steady(found):
        return form.format(found["ratio"])
    low, high = found["ratio_quartiles"]
    return f"{UNSTEADY}, {form.format(low)} to {form.format(high)}"


def is_steady(found: dict[str, Any]) -> bool:
    """Whether the quartiles of a ratio are close enough for one number to stand for it."""
    low, high = found["ratio_quartiles"]
    return bool(high <= STEADY * low)


def alternate(
    pairs: Sequence[Pair],
    seconds: float,
    *,
    least: int = 3,
    most: int = 25,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Let the two of each pair take turns until `seconds` are over, pair after pair.

    Args:
        least: rounds that are made even when time is over.
        most: rounds after which it stops.
    """
    start = clock()
    for turn in range(most):
        for pair in pairs:
            if pair.failure is not None:
                continue
            try:
                pair.times.append(_round(pair, swapped=turn % 2 == 1))
            except EngineFailed as error:  # the others go on
                pair.failure = error
        elapsed = clock() - start
        if turn + 1 >= least and elapsed * (turn + 2) / (turn + 1) > seconds:
            return


def _round(pair: Pair, swapped: bool) -> tuple[float, float]:
    """Who goes second may find the other's heat or its dirty caches; swapping shares that evenly."""
    if swapped:
        second, first = pair.second.turn(), pair.first.turn()
    else:
        first, second = pair.first.turn(), pair.second.turn()
    return first, second
