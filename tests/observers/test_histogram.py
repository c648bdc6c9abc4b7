"""`Histogram` against counting in exact arithmetic, and `Density` against sums over many points."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_int8.errors import ConfigError
from optimum_int8.observers.histogram import CHUNK, SMALLEST_EXPONENT, Density, Histogram

BINS = 16
float32s = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(-4, 4, width=32), st.just(0.0)
)


def add(histogram: Histogram, values: torch.Tensor) -> None:
    if values.numel():
        histogram.add(values, values.min().item(), values.max().item())


def counted(histogram: Histogram) -> dict[int, int]:
    counts = histogram._counts.tolist()
    return {place - (histogram.bins - 1): count for place, count in enumerate(counts) if count}


def exact_bins(values: list[float], exponent: int) -> dict[int, int]:
    return dict(Counter(math.trunc(Fraction(value) / Fraction(2) ** exponent) for value in values))


@settings(max_examples=80, deadline=None)
@given(batches=st.lists(st.lists(float32s, max_size=12), min_size=1, max_size=4))
def test_counts_are_exact_however_the_range_grows(batches: list[list[float]]) -> None:
    histogram = Histogram(BINS)
    values: list[float] = []
    for batch in batches:
        add(histogram, torch.tensor(batch, dtype=torch.float32))
        values += batch
    exponent = math.frexp(histogram.width)[1] - 1
    assert counted(histogram) == exact_bins(values, exponent)
    assert histogram.total == len(values)
    assert histogram.zeros == sum(value == 0 for value in values)
    assert (histogram.minimum, histogram.maximum) == (min([0.0, *values]), max([0.0, *values]))
    # The width is the smallest that needs no more than BINS bins.
    ends = (min([0.0, *values]), max([0.0, *values]))
    needed = [
        1 + sum(abs(math.trunc(Fraction(end) / Fraction(2) ** e)) for end in ends) for e in (exponent, exponent - 1)
    ]
    assert needed[0] <= BINS
    assert needed[1] > BINS or exponent == SMALLEST_EXPONENT


def test_growth_by_one_and_by_many_doublings() -> None:
    histogram = Histogram(BINS)
    add(histogram, torch.tensor([-0.75, 0.0, 0.5, 1.0, 3.0, 3.1]))
    assert (histogram.width, counted(histogram)) == (0.25, {-3: 1, 0: 1, 2: 1, 4: 1, 12: 2})
    add(histogram, torch.tensor([4.0]))
    assert (histogram.width, counted(histogram)) == (0.5, {-1: 1, 0: 1, 1: 1, 2: 1, 6: 2, 8: 1})
    add(histogram, torch.tensor([-(2.0**60)]))
    assert (histogram.width, counted(histogram)) == (2.0**57, {-8: 1, 0: 7})
    add(histogram, torch.tensor([3.4e38]))
    assert counted(histogram) == {0: 8, 15: 1}


def test_more_values_than_are_counted_at_once() -> None:
    values = torch.arange(2 * CHUNK + 7, dtype=torch.float32) % 10
    histogram = Histogram(BINS)
    add(histogram, values)
    assert counted(histogram) == dict(Counter(values.int().tolist()))
    assert histogram.total == len(values)


@pytest.mark.parametrize("bins", [0, 1, 3, 1000, -4])
def test_bins_are_a_power_of_two(bins: int) -> None:
    with pytest.raises(ConfigError, match="power of two"):
        Histogram(bins)


def test_density_of_both_signs() -> None:
    histogram = Histogram(BINS)
    add(histogram, torch.tensor([-2.5, -1.0, -0.5, 0.0, 0.0, 0.25, 0.5, 0.75, 1.5, 9.5]))
    assert histogram.width == 1.0
    density = histogram.density()
    assert density.edges.tolist() == [-2.5, -2.0, -1.0, 0.0, 0.0, *np.arange(1.0, 10.0), 9.5]
    # Bin 0 holds four values other than zero; they are divided evenly, as its sides are equally long.
    assert density.counts.tolist() == [1, 1, 2, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert density.zero == 3
    assert density.lows().tolist() == [-2.5, -2.0, -1.0, 0.0]
    assert density.highs().tolist() == [9.5, *np.arange(9.0, -1.0, -1.0)]


def test_density_of_magnitudes() -> None:
    histogram = Histogram(BINS)
    add(histogram, torch.tensor([-9.5, -2.5, -1.0, -0.5, 0.0, 0.25, 1.5, 2.0]))
    density = histogram.density(folded=True)
    assert density.edges.tolist() == [0.0, 0.0, 0.0, *np.arange(1.0, 10.0), 9.5]
    assert density.counts.tolist() == [0, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0, 1]
    assert density.zero == 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_density_of_one_sign(sign: float) -> None:
    histogram = Histogram(BINS)
    add(histogram, sign * torch.tensor([0.0, 0.5, 1.5, 8.0, 8.5]))
    density = histogram.density()
    assert density.counts.sum() == 5
    side = density.counts[density.zero + 1 :] if sign > 0 else density.counts[: density.zero][::-1]
    assert side.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 2]


def test_moments_are_those_of_values_spread_over_their_bins() -> None:
    edges = np.array([-3.0, -2.0, 0.0, 0.0, 1.0, 4.0, 4.0])
    density = Density(edges, np.array([4.0, 2.0, 5.0, 6.0, 3.0, 7.0]), zero=2)
    points = 3000
    parts = [
        np.linspace(left, right, points, endpoint=False) + (right - left) / points / 2
        for left, right in zip(edges, edges[1:], strict=False)
    ]
    x = np.concatenate(parts)
    weight = np.repeat(density.counts / points, points)
    for at in (-5.0, -3.0, -2.5, -2.0, -0.4, 0.0, 0.7, 1.0, 2.2, 4.0, 9.0):
        inside = x <= at
        expected = [float((weight * x**power)[inside].sum()) for power in range(3)]
        assert [float(m) for m in density.moments(np.array(at))] == pytest.approx(expected, abs=0.02)
    assert density.moments(np.array([[0.0], [1.0]]))[0].tolist() == [[11.0], [17.0]]
