"""The distribution of one tensor that a site quantizes, and the range that its scale covers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..observers.histogram import Floats, Histogram
from ..prepare import Prepared
from ..sites import Range

BINS = 512


@dataclass
class Distribution:
    """A histogram, and the range that is not clipped; None when the range is measured at run time."""

    range: Range | None
    histogram: Histogram = field(default_factory=lambda: Histogram(BINS))

    @classmethod
    def of_site(cls, prepared: Prepared, name: str) -> dict[str, Distribution]:
        """Empty ones for what the site quantizes, by the names of the ranges, in the order of the site's inputs."""
        keys = prepared.sites.kind(name).inputs
        ranges = prepared.ranges.get(name) or {}
        if keys and not ranges.keys() & set(keys):  # those of experts are by expert: one picture for all
            ranges = {}
        return {key: cls(ranges.get(key)) for key in keys}

    def add(self, values: Tensor) -> None:
        """Count finite values."""
        flat = values.detach().float().reshape(-1)
        if flat.numel():
            low, high = torch.aminmax(flat)
            self.histogram.add(flat, float(low), float(high))

    def pieces(self) -> tuple[Floats, Floats]:
        """`(edges [n + 1], share of the values in each piece [n])`; exact zeros, which take no room, are in a neighbour."""
        density = self.histogram.density()
        counts = density.counts.copy()
        place = density.zero + 1 if density.zero + 1 < len(counts) else density.zero - 1
        counts[place] += counts[density.zero]
        keep = np.arange(len(counts)) != density.zero
        edges = np.concatenate([density.edges[:-1][keep], density.edges[-1:]])
        return edges, counts[keep] / max(self.histogram.total, 1)

    def clipped(self) -> float:
        """Share of the values outside the range, as far as the histogram tells."""
        if self.range is None or not self.histogram.total:
            return 0.0
        density = self.histogram.density()
        ends = np.array([np.nextafter(self.range[0], -np.inf), self.range[1]])
        below, inside = density.moments(np.clip(ends, density.edges[0], density.edges[-1]))[0]
        below = below if self.range[0] > self.histogram.minimum else 0.0
        return float((below + self.histogram.total - inside) / self.histogram.total)

    def spread(self) -> float:
        """Largest magnitude over the root mean square: 1.7 for even values, above 30 with outliers."""
        density = self.histogram.density()
        square = density.moments(density.edges[-1])[2] / max(self.histogram.total, 1)
        return max(-self.histogram.minimum, self.histogram.maximum) / max(float(square) ** 0.5, 1e-30)
