"""`EntropyObserver`: the divergence against building P and Q bin by bin, the choice against every candidate."""

import numpy as np
import pytest
import torch

from optimum_int8.observers import EntropyObserver
from optimum_int8.observers.entropy import SMOOTHING, divergence

rng = np.random.default_rng(0)
normal = rng.normal(size=20000)
DATA = {
    "normal": normal,
    "laplace": rng.laplace(size=20000),
    "gelu": 4 * np.maximum(normal, 0.05 * normal),
    "relu": np.maximum(normal, 0.0),
    "negative": -rng.exponential(size=20000),
    "outliers": np.concatenate([normal, [90.3, -40.2]]),
}


def plain_divergence(counts: np.ndarray, start: int, stop: int, levels: int) -> float:
    inside = counts[start:stop].astype(np.float64)
    p = inside.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[stop:].sum()
    q = np.zeros_like(p)
    bins = stop - start
    for level in range(levels):
        members = slice(bins * level // levels, bins * (level + 1) // levels)
        filled = p[members] > 0
        if filled.any():
            q[members] = np.where(filled, max(inside[members].sum(), SMOOTHING) / filled.sum(), 0.0)
    p = p / counts.sum()
    q = q / inside.sum()
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("levels", [8, 128])
def test_the_divergence_of_a_range(levels: int, sparse: bool) -> None:
    counts = rng.poisson(0.4 if sparse else 20.0, size=400).astype(np.float64)
    counts[[0, 5, 399]] = 7.0
    starts = rng.integers(0, 120, size=30)
    stops = 400 - rng.integers(0, 120, size=30)
    starts[:3], stops[:3] = [0, 0, 6], [400, 390, 400]
    found = divergence(counts, starts, stops, levels)
    expected = [plain_divergence(counts, a, b, levels) for a, b in zip(starts, stops, strict=True)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_an_end_level_with_nothing_but_clipped_values() -> None:
    counts = np.zeros(64)
    counts[:20], counts[60] = 5.0, 3.0
    found = divergence(counts, np.array([0]), np.array([40]), 8)
    assert found == pytest.approx([plain_divergence(counts, 0, 40, 8)])
    assert found[0] > 0.1


def test_a_range_with_nothing_inside_is_never_chosen() -> None:
    counts = np.zeros(64)
    counts[0] = 3.0
    assert divergence(counts, np.array([8]), np.array([64]), 8).tolist() == [np.inf]


def plain_symmetric_choice(values: np.ndarray, bins: int) -> float:
    """TensorRT's loop: the clip with the least divergence, the widest of equal ones."""
    magnitudes = np.abs(values[values != 0])
    ends = max(values.max(), 0.0), max(-values.min(), 0.0)
    width = 2.0**-20
    while ends[0] // width + ends[1] // width + 1 > bins:
        width *= 2
    counts = np.bincount((magnitudes // width).astype(int))
    stops = list(range(len(counts), 127, -1))
    costs = [round(plain_divergence(counts, 0, stop, 128), 11) for stop in stops]
    return min(stops[int(np.argmin(costs))] * width, float(magnitudes.max()))


@pytest.mark.parametrize("name", ["normal", "gelu", "outliers"])
def test_the_symmetric_choice_is_that_of_the_classic_loop(name: str) -> None:
    x = torch.from_numpy(DATA[name]).float()
    observer = EntropyObserver(symmetric=True, bins=512)
    observer.observe(x)
    high = plain_symmetric_choice(x.double().numpy(), 512)
    assert observer.range() == (-high, high)


@pytest.mark.parametrize("name", DATA)
def test_the_affine_choice_is_better_than_the_extremes_and_most_ranges(name: str) -> None:
    x = torch.from_numpy(DATA[name]).float()
    observer = EntropyObserver(bins=512)
    observer.observe(x)
    low, high = observer.range()
    width = observer.histogram.width
    values = x.double().numpy()
    values = values[values != 0]
    first = int(np.floor(min(values.min(), 0.0) / width))
    last = int(np.floor(values.max() / width)) if values.max() > 0 else -1
    counts = np.bincount((np.floor(values / width) - first).astype(int), minlength=last - first + 1)

    def cost(a: float, b: float) -> float:
        start, stop = int(np.floor(a / width)) - first, int(np.ceil(b / width)) - first
        return plain_divergence(counts, start, stop, 256)

    found = cost(low, high)
    tried = []
    for _ in range(40):
        a, b = (rng.integers(first, 1) * width, rng.integers(0, last + 2) * width)
        if (b - a) / width >= 256:
            tried.append(cost(a, b))
    assert found <= cost(first * width, (last + 1) * width) + 1e-12
    assert not tried or np.mean([found <= other * 1.05 for other in tried]) > 0.9


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_lone_outlier_is_clipped(symmetric: bool) -> None:
    observer = EntropyObserver(symmetric)
    observer.observe(torch.from_numpy(np.concatenate([normal, [50.0]])).float())
    low, high = observer.range()
    assert high < 25.0
    assert low <= -3.0


def test_exact_zeros_do_not_count() -> None:
    x = torch.from_numpy(DATA["relu"]).float()
    with_zeros, without = EntropyObserver(), EntropyObserver()
    with_zeros.observe(x)
    without.observe(x[x != 0])
    assert with_zeros.range() == without.range()
