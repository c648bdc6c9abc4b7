"""`MSEObserver` against the squared error of really quantizing the data with every range of a grid."""

import numpy as np
import pytest
import torch

from optimum_int8.observers import MSEObserver
from optimum_int8.observers.histogram import Histogram
from optimum_int8.observers.mse import squared_error

rng = np.random.default_rng(0)
normal = rng.normal(size=4000)
DATA = {
    "normal": normal,
    "laplace": rng.laplace(size=4000),
    "skewed": np.exp(rng.normal(size=4000)) - 0.7,
    "relu": np.maximum(normal, 0.0),
    "negative": -rng.exponential(size=4000),
    "one outlier": np.concatenate([normal, [60.0]]),
    # Rounding to zero is all that happens to the bulk: s / 2 is larger than nearly every value.
    "massive": np.concatenate([0.01 * normal, rng.uniform(-40, 100, size=40)]),
    "two values": np.repeat([-1.0, 3.0], 500),
}


def true_error(values: np.ndarray, low: float, high: float, symmetric: bool) -> float:
    """Mean squared error after quantizing, with a zero point that need not be whole."""
    if symmetric:
        scale = high / 127
        restored = np.clip(np.round(values / scale), -127, 127) * scale
    else:
        scale = (high - low) / 255
        # Levels stand at whole multiples of the scale, as 0.0 is one of them.
        first = np.round(low / scale)
        restored = np.clip(np.round(values / scale), first, first + 255) * scale
    return float(np.mean((values - restored) ** 2))


def best_of_grid(values: np.ndarray, symmetric: bool) -> float:
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    shares = np.linspace(0.04, 1.0, 25)
    if symmetric:
        return min(true_error(values, 0.0, share * max(-low, high), True) for share in shares)
    lows = {float(share * low) for share in shares}
    highs = {float(share * high) for share in shares}
    return min(true_error(values, a, b, False) for a in sorted(lows) for b in sorted(highs))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_as_good_as_the_best_of_a_grid(name: str, symmetric: bool) -> None:
    x = torch.from_numpy(DATA[name]).float()
    observer = MSEObserver(symmetric)
    observer.observe(x)
    values = x.double().numpy()
    low, high = observer.range()
    best = best_of_grid(values, symmetric)
    found = true_error(values, low, high, symmetric)
    # Two values can happen to lie on levels; then the model's s**2 / 12 is above the true error of nearly zero.
    assert found <= 1.05 * best + (high - low) ** 2 / 255**2 / 12 * (name == "two values")


@pytest.mark.parametrize("symmetric", [False, True])
def test_outliers_are_clipped_only_when_it_pays(symmetric: bool) -> None:
    bulk = torch.from_numpy(rng.uniform(-1, 1, size=200000)).float()
    few, many = MSEObserver(symmetric), MSEObserver(symmetric)
    few.observe(torch.cat([bulk, torch.tensor([3.0])]))
    many.observe(torch.cat([bulk, torch.full((20000,), 3.0)]))
    assert few.range()[1] < 2.9
    assert many.range()[1] == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_cost_of_a_range_is_the_true_error(symmetric: bool) -> None:
    values = np.concatenate([rng.normal(size=100000), np.zeros(50000)]).astype(np.float32)
    histogram = Histogram(2048)
    histogram.add(torch.from_numpy(values), float(values.min()), float(values.max()))
    density = histogram.density(folded=symmetric)
    for low, high in ((-4.0, 4.0), (-1.0, 2.0), (-0.25, 3.0), (0.0, 1.0), (-1000.0, 3000.0)):
        if symmetric:
            low = -high
        cost = squared_error(
            density, np.array(0.0 if symmetric else low), np.array(high), 127 if symmetric else 255
        ) / len(values)
        assert float(cost) == pytest.approx(true_error(values.astype(np.float64), low, high, symmetric), rel=0.03)


def test_exact_zeros_do_not_count() -> None:
    x = torch.from_numpy(np.maximum(rng.normal(size=20000), 0.0)).float()
    with_zeros, without = MSEObserver(), MSEObserver()
    with_zeros.observe(x)
    without.observe(x[x != 0])
    assert with_zeros.range() == without.range()
