"""`best_ends`: the search for the two ends of a range, shared by the observers that minimise a cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .histogram import Floats

Indices: TypeAlias = npt.NDArray[np.int64]
Cost: TypeAlias = Callable[[Indices, Indices], Floats]

POINTS = 33
"""Ends tried per side and round. 1089 pairs at once; two or three rounds find the best of 2048 bins."""


def best_ends(low_count: int, high_count: int, cost: Cost) -> tuple[int, int]:
    """The indices of the lower and the upper end with the least cost, searched from coarse to fine.

    Each round tries every pair of at most `POINTS` evenly spaced ends per side, and the next one looks between the
    neighbours of the best pair, until the spacing is one. A side with no more than `POINTS` ends is thus searched
    completely; otherwise a cost that is not smooth on the scale of the first spacing may hide a lower minimum.
    When one side has a single end (a one-sided or a symmetric range), all ends of the other are tried.

    Args:
        low_count, high_count: number of ends per side; index 0 is the outermost and wins a tie.
        cost: of the pairs (low [n, 1], high [1, m]) as [n, m]; infinite where a pair is not allowed.
    """
    if low_count == 1 or high_count == 1:
        costs = cost(np.arange(low_count)[:, None], np.arange(high_count)[None, :])
        low, high = np.unravel_index(int(np.argmin(costs)), costs.shape)
        return int(low), int(high)
    windows = [(0, low_count - 1), (0, high_count - 1)]
    while True:
        lows, highs = (_spaced(*window) for window in windows)
        costs = cost(lows[:, None], highs[None, :])
        places = np.unravel_index(int(np.argmin(costs)), costs.shape)
        if len(lows) == windows[0][1] - windows[0][0] + 1 and len(highs) == windows[1][1] - windows[1][0] + 1:
            return int(lows[places[0]]), int(highs[places[1]])
        windows = [_neighbours(ends, int(place)) for ends, place in zip((lows, highs), places, strict=True)]


def _spaced(first: int, last: int) -> Indices:
    """At most `POINTS` evenly spaced indices from `first` to `last`, both included."""
    return np.unique(np.linspace(first, last, min(POINTS, last - first + 1)).round().astype(np.int64))


def _neighbours(ends: Indices, place: int) -> tuple[int, int]:
    return int(ends[max(place - 1, 0)]), int(ends[min(place + 1, len(ends) - 1)])
