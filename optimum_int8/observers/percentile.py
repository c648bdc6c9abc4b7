"""`PercentileObserver`: a range that leaves out the same small share of values at each end."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from torch import Tensor

from ..config import Int8Config
from .base import Observer
from .histogram import Floats, Histogram


class PercentileObserver(Observer):
    """Keeps `percentile` percent of the values inside the range, from a streaming histogram.

    Of n values, `k = floor(n * (100 - percentile) / 200)` may lie outside at each end, so the ends are the order
    statistics `x[k]` and `x[n - 1 - k]`. When symmetric, `k = floor(n * (100 - percentile) / 100)` and the end is that
    of `|x|`. An end is interpolated linearly within its histogram bin, which also holds the exact one: the error is at
    most the bin width (twice that in the bin around zero). With k = 0 the range is exact.
    Independent of how the data is split into batches.

    Args:
        percentile: in percent, from 50 to 100.
        bins: number of histogram bins, a power of two.

    Example:
        >>> import torch
        >>> observer = PercentileObserver(percentile=90.0)
        >>> observer.observe(torch.linspace(0.0, 1.0, 10001))
        >>> round(observer.range()[1], 2)
        0.95
    """

    def __init__(
        self,
        symmetric: bool = False,
        *,
        percentile: float = Int8Config.percentile,
        bins: int = Int8Config.histogram_bins,
    ) -> None:
        super().__init__(symmetric)
        # Through str: 99.98 means the decimal; in binary it is a little more, and n * (100 - 99.98) falls short.
        self._outside = 1 - Fraction(str(percentile)) / 100
        self.histogram = Histogram(bins)

    @classmethod
    def from_config(cls, config: Int8Config, symmetric: bool = False) -> PercentileObserver:
        """The observer with the settings that `config` has for it."""
        return cls(symmetric, percentile=config.percentile, bins=config.histogram_bins)

    def _update(self, values: Tensor, low: float, high: float) -> None:
        self.histogram.add(values, low, high)

    def _choose_range(self) -> tuple[float, float]:
        histogram = self.histogram
        cut = int(histogram.total * self._outside / (1 if self.symmetric else 2))
        if cut == 0:
            return histogram.minimum, histogram.maximum
        density = histogram.density(folded=self.symmetric)
        high = _kth_largest(density.edges, density.counts, cut + 1)
        low = -high if self.symmetric else -_kth_largest(-density.edges[::-1], density.counts[::-1], cut + 1)
        return low, high


def _kth_largest(edges: Floats, counts: Floats, k: int) -> float:
    """The k-th largest value (k from 1) of a piecewise uniform distribution, its pieces given in ascending order."""
    reached = np.cumsum(counts[::-1])
    piece = int(np.searchsorted(reached, k))
    place = len(counts) - 1 - piece
    share = (reached[piece] - k + 0.5) / counts[place]
    return float(edges[place] + share * (edges[place + 1] - edges[place]))
