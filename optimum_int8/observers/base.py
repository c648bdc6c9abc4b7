"""`Observer`: what every observer shares: masking, the finite check, the exact extremes and the form of a range."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..config import Int8Config
from ..errors import CalibrationError

SMALLEST_SPAN = 2.0**-100
"""A narrower range counts as all zero: its scale, or the reciprocal of it, would leave the normal float32 numbers."""

ALL_ZERO_RANGE = (-1.0, 1.0)
"""Range of a tensor that was zero throughout: its size is unknown, and a scale near zero would saturate later values."""


class Observer(ABC):
    """Watches the values of one tensor, batch after batch, and derives the range that its quantizer uses.

    Memory does not grow with the number of batches. A subclass says in `_update` what it remembers of a batch, and in
    `_choose_range` which range follows.

    Args:
        symmetric: the range is for a symmetric quantizer (int8, 127 levels on each side of 0) and is returned as
            `(-a, a)`. Otherwise it is for an affine one (uint8, 256 levels).

    Attributes:
        minimum, maximum: exact extremes of 0.0 and what was counted; None before the first value.
    """

    def __init__(self, symmetric: bool = False) -> None:
        self.symmetric = symmetric
        self.minimum: float | None = None
        self.maximum: float | None = None

    @classmethod
    def from_config(cls, config: Int8Config, symmetric: bool = False) -> Observer:
        """The observer with the settings that `config` has for it."""
        return cls(symmetric)

    def observe(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Count the values of one batch.

        Args:
            x: any shape; its values are taken as float32.
            mask: bool, of shape `x.shape[:-1]` or broadcastable to it; False = padding, which does not count.

        Raises:
            CalibrationError: a counted value is NaN or infinite, or the mask does not fit. Earlier batches stay.
        """
        values = _select(x.detach(), mask)
        if values.numel() == 0:
            return
        low, high = (bound.item() for bound in torch.aminmax(values))
        # aminmax propagates NaN, so two comparisons check every value.
        if not (low > -torch.inf and high < torch.inf):
            raise _not_finite(values)
        self.minimum = min(low, 0.0 if self.minimum is None else self.minimum)
        self.maximum = max(high, 0.0 if self.maximum is None else self.maximum)
        self._update(values, low, high)

    def range(self) -> tuple[float, float]:
        """The range `(low, high)`, with `low <= 0.0 <= high` and `low < high`; `(-a, a)` when symmetric.

        A tensor that was zero throughout gets `ALL_ZERO_RANGE`; a choice that collapsed onto zero is replaced by the
        extremes.

        Raises:
            CalibrationError: nothing was observed.
        """
        if self.minimum is None or self.maximum is None:
            raise CalibrationError(
                "no value was observed, so there is no range; expected at least one calibration batch that runs this "
                "module on positions that are not padding. Give such data, or exclude the module"
            )
        if self.maximum - self.minimum < SMALLEST_SPAN:
            return ALL_ZERO_RANGE
        low, high = self._choose_range()
        # Adding 0.0 turns -0.0 into 0.0.
        low = min(low, 0.0) + 0.0
        high = max(high, 0.0) + 0.0
        if high - low < SMALLEST_SPAN:
            low = self.minimum
            high = self.maximum
        if self.symmetric:
            high = max(-low, high)
            low = -high
        return low, high

    @abstractmethod
    def _update(self, values: Tensor, low: float, high: float) -> None:
        """Remember a batch: finite float32 `values`, at least one, flat; `low` and `high` are their extremes."""

    @abstractmethod
    def _choose_range(self) -> tuple[float, float]:
        """The range for what was remembered, which is not zero throughout. Need not contain 0.0 nor be symmetric."""


def _select(x: Tensor, mask: Tensor | None) -> Tensor:
    """The counted values of `x` as a flat float32 tensor."""
    if mask is not None:
        if mask.dtype != torch.bool:
            raise CalibrationError(
                f"the mask has dtype {mask.dtype}; expected torch.bool, where False is padding. Pass mask.bool()"
            )
        try:
            mask = mask.expand(x.shape[:-1])
        except RuntimeError as error:
            raise CalibrationError(
                f"a mask of shape {tuple(mask.shape)} does not fit a tensor of shape {tuple(x.shape)}; "
                f"expected {tuple(x.shape[:-1])} or a shape that broadcasts to it"
            ) from error
        if not mask.all():
            x = x[mask]
    return x.reshape(-1).float()


def _not_finite(values: Tensor) -> CalibrationError:
    nans = int(values.isnan().sum())
    infinities = int(values.isinf().sum())
    return CalibrationError(
        f"found {nans} NaN and {infinities} infinite values among {values.numel()} (as float32); expected finite numbers "
        "only. Check the calibration inputs and the weights, run the original model in float32, or exclude this module"
    )
