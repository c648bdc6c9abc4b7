"""`make_observer`: every name of the configuration, each with its settings."""

import pytest

from optimum_int8.config import OBSERVERS, Int8Config
from optimum_int8.observers import (
    EntropyObserver,
    MinMaxObserver,
    MovingAverageObserver,
    MSEObserver,
    PercentileObserver,
    make_observer,
)

CLASSES = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "percentile": PercentileObserver,
    "mse": MSEObserver,
    "entropy": EntropyObserver,
}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", OBSERVERS)
def test_every_name_of_the_configuration(name: str, symmetric: bool) -> None:
    observer = make_observer(Int8Config(observer=name, histogram_bins=1024), symmetric)
    assert type(observer) is CLASSES[name]
    assert observer.symmetric is symmetric
    if hasattr(observer, "histogram"):
        assert observer.histogram.bins == 1024


def test_settings_of_a_single_observer() -> None:
    moving = make_observer(Int8Config(observer="moving_average", averaging_constant=0.25))
    assert isinstance(moving, MovingAverageObserver) and moving.averaging_constant == 0.25
    percentile = make_observer(Int8Config(observer="percentile", percentile=98.5))
    assert isinstance(percentile, PercentileObserver) and percentile._outside * 1000 == 15
