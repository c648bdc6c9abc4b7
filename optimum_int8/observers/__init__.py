"""Observers: how calibration turns the values of a tensor into a range. One file each; `base.py` is the contract."""

from __future__ import annotations

from ..config import Int8Config
from .base import Observer
from .entropy import EntropyObserver
from .minmax import MinMaxObserver
from .moving_average import MovingAverageObserver
from .mse import MSEObserver
from .percentile import PercentileObserver
from .token_ranges import TokenRanges

__all__ = [
    "EntropyObserver",
    "MSEObserver",
    "MinMaxObserver",
    "MovingAverageObserver",
    "Observer",
    "PercentileObserver",
    "TokenRanges",
    "make_observer",
]

_OBSERVERS: dict[str, type[Observer]] = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "percentile": PercentileObserver,
    "mse": MSEObserver,
    "entropy": EntropyObserver,
}


def make_observer(config: Int8Config, symmetric: bool = False) -> Observer:
    """The observer that `config.observer` names, with its settings.

    Args:
        symmetric: for a symmetric int8 quantizer; the range is `(-a, a)`.

    Example:
        >>> type(make_observer(Int8Config(observer="mse"))).__name__
        'MSEObserver'
    """
    return _OBSERVERS[config.observer].from_config(config, symmetric)
