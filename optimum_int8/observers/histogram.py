"""`Histogram`: counts of float32 values in constant memory, exact in any order and any division into batches.

Bins are `2**exponent` wide and lie symmetrically around 0: bin 0 is `(-w, w)`, bin k is `[k*w, (k+1)*w)`, bin -k its
mirror image. The bin of x is thus `trunc(x / w)`, which float32 computes without error for a power of two. When a value
falls outside, w doubles until all fit, and bin k moves to `trunc(k / 2)`. As `trunc(trunc(x / w) / 2)` equals
`trunc(x / (2 * w))`, this is where its values would have been counted in the first place. The final w depends on the
extremes alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..config import Int8Config
from ..errors import ConfigError

Floats: TypeAlias = npt.NDArray[np.float64]

SMALLEST_EXPONENT = -126
"""The narrowest bin: its width and the reciprocal of it are both normal float32 numbers."""

CHUNK = 1 << 16
"""Values counted at once: few enough that the intermediate results stay in the cache."""


class Histogram:
    """Counts of values, in at most `bins` bins from the smallest to the largest value seen (0.0 included).

    Between half of the bins and all of them are in use, so the width is below `2 * (maximum - minimum) / bins` or so.

    Args:
        bins: a power of two.

    Attributes:
        minimum, maximum: exact extremes of 0.0 and the values.
        total, zeros: number of values, and of those that are exactly 0.0.

    Raises:
        ConfigError: `bins` is not a power of two.
    """

    def __init__(self, bins: int = Int8Config.histogram_bins) -> None:
        if bins < 2 or bins & (bins - 1):
            raise ConfigError(f"a histogram of {bins} bins; expected a power of two")
        self.bins = bins
        self.minimum = 0.0
        self.maximum = 0.0
        self.total = 0
        self.zeros = 0
        self._exponent = SMALLEST_EXPONENT
        # Bin k at place k + bins - 1. Which side needs how many is not known beforehand, so there is room for either.
        self._counts = torch.zeros(2 * bins - 1, dtype=torch.int64)

    @property
    def width(self) -> float:
        """Width w of a bin; bin 0 covers `(-w, w)`."""
        return 2.0**self._exponent

    def add(self, values: Tensor, low: float, high: float) -> None:
        """Count finite float32 `values` (flat) whose extremes are `low` and `high`."""
        self.minimum = min(self.minimum, low)
        self.maximum = max(self.maximum, high)
        self._widen(max(self._exponent, _fitting_exponent(self.minimum, self.maximum, self.bins)))
        for chunk in values.split(CHUNK):
            places = chunk.mul(2.0**-self._exponent).to(torch.int32).add_(self.bins - 1)
            self._counts += torch.bincount(places, minlength=2 * self.bins - 1).cpu()
            self.zeros += chunk.numel() - int(torch.count_nonzero(chunk))
        self.total += values.numel()

    def density(self, folded: bool = False) -> Density:
        """The counts as pieces from `minimum` to `maximum`, or those of the magnitudes `|x|` from 0.0 to the largest.

        Bin 0 is divided at zero in proportion to the length on each side, and exact zeros stand apart.
        """
        first = int(self.minimum / self.width)
        last = int(self.maximum / self.width)
        minimum = self.minimum
        maximum = self.maximum
        centre = self.bins - 1
        if folded:
            first, last, minimum, maximum = 0, max(-first, last), 0.0, max(-minimum, maximum)
            used = self._counts[centre : centre + last + 1].numpy().copy()
            used[1:] += self._counts[centre - last : centre].numpy()[::-1]
        else:
            used = self._counts[centre + first : centre + last + 1].numpy()
        near_zero = int(used[-first]) - self.zeros
        span_below = min(-minimum, self.width)
        span_above = min(maximum, self.width)
        below = round(near_zero * span_below / (span_below + span_above)) if near_zero else 0
        counts = np.concatenate([used[:-first], [below, self.zeros, near_zero - below], used[1 - first :]])
        edges = np.concatenate([np.arange(first - 1, 1), np.arange(0, last + 2)]) * self.width
        return Density(np.clip(edges, minimum, maximum), counts.astype(np.float64), zero=1 - first)

    def _widen(self, exponent: int) -> None:
        """Merge bins until they are `2**exponent` wide."""
        if exponent == self._exponent:
            return
        # Beyond bins, every bin merges into bin 0; the limit keeps the divisor within int64.
        factor = 2 ** min(exponent - self._exponent, self.bins.bit_length())
        numbers = torch.arange(1 - self.bins, self.bins)
        places = torch.div(numbers, factor, rounding_mode="trunc") + (self.bins - 1)
        self._counts = torch.zeros_like(self._counts).index_add_(0, places, self._counts)
        self._exponent = exponent


@dataclass(frozen=True)
class Density:
    """A piecewise uniform distribution: `counts[i]` values spread evenly from `edges[i]` to `edges[i + 1]`.

    Attributes:
        edges: [n + 1], ascending.
        counts: [n], whole numbers.
        zero: the piece from 0.0 to 0.0 that holds the exact zeros.
    """

    edges: Floats
    counts: Floats
    zero: int

    def lows(self) -> Floats:
        """Lower ends worth trying: the edges up to 0.0, the outermost first; 0.0 alone when no value is negative."""
        return self.edges[: self.zero + 1] if self.edges[0] < 0 else np.zeros(1)

    def highs(self) -> Floats:
        """Upper ends worth trying: the edges from 0.0 on, the outermost first; 0.0 alone when no value is positive."""
        return self.edges[: self.zero : -1] if self.edges[-1] > 0 else np.zeros(1)

    def moments(self, at: Floats) -> tuple[Floats, Floats, Floats]:
        """Sums of 1, x and x**2 over the values x <= at, each of the shape of `at`."""
        left = self.edges[:-1]
        right = self.edges[1:]
        counts = self.counts
        pieces = (counts, counts * (left + right) / 2, counts * _mean_square(left, right))
        whole = [np.concatenate([[0.0], np.cumsum(piece)]) for piece in pieces]
        index = np.searchsorted(right, at, side="right")
        inside = np.minimum(index, len(counts) - 1)
        start = left[inside]
        stop = np.clip(at, start, right[inside])
        length = right[inside] - start
        share = (stop - start) / np.where(length > 0, length, 1.0)
        partial = np.where(index < len(counts), counts[inside] * share, 0.0)
        return (
            whole[0][index] + partial,
            whole[1][index] + partial * (start + stop) / 2,
            whole[2][index] + partial * _mean_square(start, stop),
        )


def _mean_square(left: Floats, right: Floats) -> Floats:
    """Mean of x**2 for x uniform from `left` to `right`."""
    return (left * left + left * right + right * right) / 3


def _fitting_exponent(minimum: float, maximum: float, bins: int) -> int:
    """The smallest exponent whose bins cover `minimum <= 0 <= maximum` with at most `bins` of them."""
    absmax = max(-minimum, maximum)
    if absmax == 0.0:
        return SMALLEST_EXPONENT
    exponent = max(math.frexp(absmax)[1] - (bins.bit_length() - 1), SMALLEST_EXPONENT)
    width = 2.0**exponent
    return exponent if int(maximum / width) - int(minimum / width) < bins else exponent + 1
