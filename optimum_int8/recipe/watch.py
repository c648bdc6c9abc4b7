"""`Watch`: what calibration remembers of one tensor, so that every algorithm can be asked for its range afterwards."""

from __future__ import annotations

from torch import Tensor

from .. import numerics
from ..config import Int8Config
from ..observers import (
    EntropyObserver,
    MinMaxObserver,
    MovingAverageObserver,
    MSEObserver,
    Observer,
    PercentileObserver,
)

ALGORITHMS = {
    "min_max": "minmax",
    "moving_averager_min_max": "moving_average",  # spelt as in Intel Extension for PyTorch, whose files are read
    "kl": "entropy",
    "percentile": "percentile",
    "mse": "mse",
}
"""Name in a recipe to the name of our observer."""

DTYPES = ("uint8", "int8")
"""Affine with a zero point, or symmetric around zero."""

Range = tuple[float, float]


class Watch:
    """The extremes of a tensor and, with `histogram`, one histogram that the three algorithms over histograms share."""

    def __init__(self, symmetric: bool, histogram: bool = True) -> None:
        settings = Int8Config()
        self.observers: dict[str, Observer] = {"min_max": MinMaxObserver(symmetric)}
        if histogram:
            self.observers["moving_averager_min_max"] = MovingAverageObserver.from_config(settings, symmetric)
            self.observers["kl"] = EntropyObserver.from_config(settings, symmetric)
        self._borrowers: dict[str, Observer] = {
            "percentile": PercentileObserver.from_config(settings, symmetric),
            "mse": MSEObserver.from_config(settings, symmetric),
        }

    def observe(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Count the values of one call; see `Observer.observe`."""
        for observer in self.observers.values():
            observer.observe(x, mask)

    def ranges(self) -> dict[str, Range]:
        """Range by name of the algorithm; nothing where no value was counted."""
        if self.observers["min_max"].minimum is None:
            return {}
        found = {name: observer.range() for name, observer in self.observers.items()}
        lender = self.observers.get("kl")
        if lender is not None:
            for name, borrower in self._borrowers.items():
                borrower.minimum = lender.minimum
                borrower.maximum = lender.maximum
                borrower.histogram = lender.histogram  # type: ignore[attr-defined]
                found[name] = borrower.range()
        return found


def choose_qparams(limits: Range, dtype: str) -> tuple[float, int]:
    """`(scale, zero_point)` as a recipe writes them: int8 is symmetric, with zero point 0."""
    if dtype == "int8":
        return numerics.choose_symmetric_scale(max(-limits[0], limits[1])), 0
    return numerics.choose_affine_qparams(*limits)


def stored_zero_point(zero_point: int, dtype: str) -> int:
    """The same zero point on uint8, as the modules hold it."""
    return zero_point + numerics.SYMMETRIC_ZERO_POINT if dtype == "int8" else zero_point
