"""`PercentileObserver` against order statistics of the sorted data."""

from decimal import Decimal

import numpy as np
import pytest
import torch

from optimum_int8.observers import PercentileObserver

rng = np.random.default_rng(0)
DATA = {
    "normal": rng.normal(size=20000),
    "shifted": rng.normal(size=20000) + 2.0,
    "relu": np.maximum(rng.normal(size=20000), 0.0),
    "negative": -rng.exponential(size=20000) - 0.5,
    "outliers": np.concatenate([rng.normal(size=20000), [900.0, -300.0]]),
    "few": np.array([-3.0, -1.0, 2.0, 5.0]),
}


def exact(values: np.ndarray, percentile: float, symmetric: bool) -> tuple[float, float]:
    outside = (100 - Decimal(str(percentile))) / 100
    if symmetric:
        magnitudes = np.sort(np.abs(values))
        high = magnitudes[len(values) - 1 - int(len(values) * outside)]
        return -high, high
    cut = int(len(values) * outside / 2)
    ordered = np.sort(values)
    return min(ordered[cut], 0.0), max(ordered[len(values) - 1 - cut], 0.0)


@pytest.mark.parametrize("percentile", [50.0, 99.0, 99.99])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_within_a_bin_of_the_order_statistic(name: str, symmetric: bool, percentile: float) -> None:
    x = torch.from_numpy(DATA[name]).float()
    observer = PercentileObserver(symmetric, percentile=percentile, bins=512)
    for batch in x.split(7001):
        observer.observe(batch)
    expected = exact(x.numpy(), percentile, symmetric)
    if expected == (0.0, 0.0):
        # Half of the magnitudes are zero: the choice collapses, and the extremes stand in for it.
        expected = exact(x.numpy(), 100.0, symmetric)
    width = observer.histogram.width
    for found, end in zip(observer.range(), expected, strict=True):
        assert abs(found - end) <= (width if abs(end) >= width else 2 * width)
    assert width <= 4 * (x.max().clamp(min=0) - x.min().clamp(max=0)).item() / 512


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_one_hundred_percent_is_exact(name: str, symmetric: bool) -> None:
    x = torch.from_numpy(DATA[name]).float()
    observer = PercentileObserver(symmetric, percentile=100.0)
    observer.observe(x)
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    assert observer.range() == ((-max(-low, high), max(-low, high)) if symmetric else (low, high))


def test_the_share_is_decimal() -> None:
    # 0.02 % of 10000 values is 2, one per end; the binary 99.98 is a little more, and would leave none.
    values = torch.cat([torch.linspace(-1, 1, 9998), torch.tensor([-50.0, 50.0])])
    observer = PercentileObserver(percentile=99.98)
    observer.observe(values)
    assert observer.range() == pytest.approx((-1.0, 1.0), abs=observer.histogram.width)


def test_interpolation_within_a_bin() -> None:
    # One outlier makes the bins 1.0 wide, and 1000 values lie evenly in the one from 2.0 to 3.0.
    values = torch.cat([2.0 + torch.arange(1000) / 1000, torch.tensor([511.5])])
    observer = PercentileObserver(percentile=50.0, bins=512)
    observer.observe(values)
    assert observer.histogram.width == 1.0
    # 250 values are above the upper end, of them the outlier.
    assert observer.range()[1] == pytest.approx(2.75, abs=0.002)
