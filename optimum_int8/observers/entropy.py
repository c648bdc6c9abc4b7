"""`EntropyObserver`: the range that loses the least information, by Kullback-Leibler divergence over a histogram."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..config import Int8Config
from .base import Observer
from .histogram import Floats, Histogram
from .search import Indices, best_ends

SMOOTHING = 1e-4
"""Count that stands for none in Q where P has some; the value MXNet's `_smooth_distribution` uses."""


class EntropyObserver(Observer):
    """KL calibration: compares the clipped histogram with what its quantized form would be expanded back to.

    For each candidate range, P is the histogram inside it with everything outside added to the end bins; Q merges the
    bins inside (without what was outside) into the quantizer's levels, and spreads each level's count evenly over those
    of its bins that P has values in. The range with the least KL(P || Q) wins.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017, and `_get_optimal_threshold` in Apache MXNet's
    `contrib/quantization.py`. Symmetric ranges follow the former: magnitudes, 128 levels, every clip that leaves at
    least one bin per level. The affine form is ours: both ends move and there are 256 levels; searched from coarse to
    fine (`search.py`), so that a slightly lower minimum between the tried pairs may be missed. Further differences:
    - exact zeros are left out, since every range represents them (elsewhere, the first bin is dropped for this reason);
    - a remainder of bins is spread over the levels instead of going to the last one;
    - the only level of Q that needs smoothing is an end level with nothing but clipped values, which gets `SMOOTHING`.
    Independent of how the data is split into batches.

    Args:
        bins: number of histogram bins, a power of two, at least 512.
        bits: the range is for `2**bits` levels; what is said above is for 8.

    Example:
        >>> import torch
        >>> observer = EntropyObserver()
        >>> observer.observe(torch.cat([torch.randn(100000), torch.tensor([50.0])]))
        >>> observer.range()[1] < 25.0
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
        self.levels = 2 ** (bits - 1) if symmetric else 2**bits
        self.histogram = Histogram(bins)

    @classmethod
    def from_config(cls, config: Int8Config, symmetric: bool = False) -> EntropyObserver:
        """The observer with the settings that `config` has for it."""
        return cls(symmetric, bins=config.histogram_bins, bits=config.activation_bits)

    def _update(self, values: Tensor, low: float, high: float) -> None:
        self.histogram.add(values, low, high)

    def _choose_range(self) -> tuple[float, float]:
        density = self.histogram.density(folded=self.symmetric)
        levels = self.levels
        lows = density.lows()
        highs = density.highs()
        # Without the piece of exact zeros, and what is on the other side of a range with one sign, bins are even.
        one_sign = slice(0 if len(lows) > 1 else 1, None if len(highs) > 1 else -1)
        counts: Floats = np.delete(density.counts, density.zero)[one_sign]

        def cost(low: Indices, high: Indices) -> Floats:
            start, stop = np.broadcast_arrays(low, len(counts) - high)
            allowed = (stop - start >= levels) | ((start == 0) & (stop == len(counts)))
            costs = np.full(start.shape, np.inf)
            costs[allowed] = divergence(counts, start[allowed], stop[allowed], levels)
            return costs

        low, high = best_ends(len(lows), len(highs), cost)
        return float(lows[low]), float(highs[high])


def divergence(counts: Floats, start: Indices, stop: Indices, levels: int) -> Floats:
    """KL(P || Q), in nats, of the ranges that keep the bins `start` to `stop - 1`; see `EntropyObserver`.

    Sums over bins are differences of running sums, so that a range costs one step per level instead of one per bin.

    Args:
        counts: [bins], with a positive sum.
        start, stop: [ranges], `start < stop`.
        levels: of the quantizer; a range with fewer bins has that many.

    Returns:
        [ranges]; infinite for a range with no value inside. Rounded to 12 digits, since running sums are not more
        exact, so that ranges with equal divergences tie.
    """
    values = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    entropies = np.concatenate([[0.0], np.cumsum(_x_log_x(counts))])

    # [ranges, levels + 1]: the bin with which each level begins. A level without bins has no part in any sum.
    begins = start[:, None] + (stop - start)[:, None] * np.arange(levels + 1) // levels
    kept = np.diff(values[begins])
    spread_over = np.diff(filled[begins])
    clipped = kept.copy()
    entropy = entropies[stop] - entropies[start]
    outsides = (values[start], values[-1] - values[stop])
    for level, bin_, outside in zip((0, -1), (start, stop - 1), outsides, strict=True):
        clipped[:, level] += outside
        spread_over[:, level] += (counts[bin_] == 0) & (outside > 0)
        entropy += _x_log_x(counts[bin_] + outside) - _x_log_x(counts[bin_])

    log_q = np.log(np.maximum(kept, SMOOTHING) / np.maximum(spread_over, 1))
    inside = values[stop] - values[start]
    result = (entropy - (clipped * log_q).sum(axis=1)) / values[-1] + np.log(
        np.where(inside > 0, inside, 1) / values[-1]
    )
    return np.where(inside > 0, result.round(12), np.inf)


def _x_log_x(x: Floats) -> Floats:
    return x * np.log(np.where(x > 0, x, 1.0))
