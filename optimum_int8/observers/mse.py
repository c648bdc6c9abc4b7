"""`MSEObserver`: the range with the least mean squared quantization error over a histogram."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .. import numerics
from ..config import Int8Config
from .base import Observer
from .histogram import Density, Floats, Histogram
from .search import Indices, best_ends


class MSEObserver(Observer):
    """Trades the error of clipping against that of rounding, from a streaming histogram.

    With the values of a bin spread evenly over it, the squared error of a range `[low, high]` with step s is the sum of
    - clipping: `(low - x)**2` below the range and `(x - high)**2` above it;
    - rounding to zero: `x**2` for `|x| < s / 2` (none for exact zeros, which every range represents);
    - rounding elsewhere in the range: `s**2 / 12` per value, the mean for a value anywhere between two levels.
    s is `(high - low) / 255`, or `high / 127` when symmetric, with 8 bits. The shift of less than s that makes the zero point a
    whole number is left out. Ends are bin edges and the exact extremes: symmetric clips are all tried; the two ends of
    an affine range are searched together, from coarse to fine (`search.py`; this cost is smooth), in milliseconds.
    Independent of how the data is split into batches.

    Args:
        bins: number of histogram bins, a power of two.
        bits: the range is for `2**bits` levels.

    Example:
        >>> import torch
        >>> observer = MSEObserver()
        >>> observer.observe(torch.cat([torch.linspace(-1.0, 1.0, 1000000), torch.tensor([3.0])]))
        >>> observer.range()[1] < 2.0
        True
    """

    def __init__(
        self,
        symmetric: bool = False,
        *,
        bins: int = Int8Config.histogram_bins,
        bits: int = Int8Config.activation_bits,
    ) -> None:
        super().__init__(symmetric)
        self.bits = bits
        self.histogram = Histogram(bins)

    @classmethod
    def from_config(cls, config: Int8Config, symmetric: bool = False) -> MSEObserver:
        """The observer with the settings that `config` has for it."""
        return cls(symmetric, bins=config.histogram_bins, bits=config.activation_bits)

    def _update(self, values: Tensor, low: float, high: float) -> None:
        self.histogram.add(values, low, high)

    def _choose_range(self) -> tuple[float, float]:
        density = self.histogram.density(folded=self.symmetric)
        steps = numerics.affine_max(self.bits) // 2 if self.symmetric else numerics.affine_max(self.bits)
        lows = density.lows()
        highs = density.highs()

        def cost(low: Indices, high: Indices) -> Floats:
            return squared_error(density, lows[low], highs[high], steps)

        low, high = best_ends(len(lows), len(highs), cost)
        return float(lows[low]), float(highs[high])


def squared_error(density: Density, low: Floats, high: Floats, steps: int) -> Floats:
    """Summed squared error of the ranges `[low, high]` (broadcast together) divided into `steps`; see `MSEObserver`."""
    step = (high - low) / steps
    total = density.moments(density.edges[-1])
    below = density.moments(low)
    under_high = density.moments(high)
    above = [whole - part for whole, part in zip(total, under_high, strict=True)]
    clipping = _spread(below, low) + _spread(above, high)
    cell_low = density.moments(np.maximum(-step / 2, low))
    cell_high = density.moments(np.minimum(step / 2, high))
    to_zero = cell_high[2] - cell_low[2]
    elsewhere = (under_high[0] - below[0]) - (cell_high[0] - cell_low[0])
    return clipping + to_zero + elsewhere * step * step / 12


def _spread(moments: tuple[Floats, ...] | list[Floats], point: Floats) -> Floats:
    """Sum of `(x - point)**2` over values with these sums of 1, x and x**2."""
    count, first, second = moments
    return second - 2 * point * first + point * point * count
