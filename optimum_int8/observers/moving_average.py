"""`MovingAverageObserver`: exponential averages of each batch's extremes."""

from __future__ import annotations

from torch import Tensor

from ..config import Int8Config
from .base import Observer


class MovingAverageObserver(Observer):
    """Follows the batches' extremes: `low += c * (batch_low - low)`, likewise `high`; the first batch sets both.

    By definition it depends on the order of the batches and on how the data is split into them.
    Source: `torch.ao.quantization.MovingAverageMinMaxObserver`, computed here in float64.

    Args:
        averaging_constant: the weight `c` of a new batch, in (0, 1].

    Example:
        >>> import torch
        >>> observer = MovingAverageObserver(averaging_constant=0.5)
        >>> observer.observe(torch.tensor([-1.0, 3.0]))
        >>> observer.observe(torch.tensor([-1.0, 5.0]))
        >>> observer.range()
        (-1.0, 4.0)
    """

    def __init__(self, symmetric: bool = False, *, averaging_constant: float = Int8Config.averaging_constant) -> None:
        super().__init__(symmetric)
        self.averaging_constant = averaging_constant
        self._average: tuple[float, float] | None = None

    @classmethod
    def from_config(cls, config: Int8Config, symmetric: bool = False) -> MovingAverageObserver:
        """The observer with the settings that `config` has for it."""
        return cls(symmetric, averaging_constant=config.averaging_constant)

    def _update(self, values: Tensor, low: float, high: float) -> None:
        if self._average is None:
            self._average = (low, high)
            return
        old_low, old_high = self._average
        c = self.averaging_constant
        self._average = (old_low + c * (low - old_low), old_high + c * (high - old_high))

    def _choose_range(self) -> tuple[float, float]:
        assert self._average is not None
        return self._average
