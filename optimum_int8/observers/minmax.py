"""`MinMaxObserver`: the smallest and the largest value seen."""

from __future__ import annotations

from torch import Tensor

from .base import Observer


class MinMaxObserver(Observer):
    """The range holds every value that was observed. Independent of how the data is split into batches.

    Example:
        >>> import torch
        >>> observer = MinMaxObserver()
        >>> observer.observe(torch.tensor([-1.0, 3.0]))
        >>> observer.range()
        (-1.0, 3.0)
    """

    def _update(self, values: Tensor, low: float, high: float) -> None:
        """Nothing: the base class keeps the extremes."""

    def _choose_range(self) -> tuple[float, float]:
        assert self.minimum is not None and self.maximum is not None
        return self.minimum, self.maximum
