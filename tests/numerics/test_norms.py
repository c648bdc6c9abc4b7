"""Sums over rows in their fixed order, and the norms that are made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_int8 import numerics

few = settings(max_examples=60, deadline=None)


def sum_in_lanes(values: list[float]) -> np.float32:
    lanes = [np.float32(0)] * 16
    for i, value in enumerate(values):
        lanes[i % 16] = lanes[i % 16] + np.float32(value)
    for half in (8, 4, 2, 1):
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
    return lanes[0]


@few
@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=100))
def test_row_sum_order(values: list[float]) -> None:
    found = numerics.row_sum(torch.tensor([values, values[::-1]]))
    assert found.tolist() == [float(sum_in_lanes(values)), float(sum_in_lanes(values[::-1]))]


def test_row_sum_order_shows() -> None:
    """1e8 + 1 - 1e8 in float32 is 0 in one lane and 1 across lanes."""
    values = torch.zeros(48)
    values[0], values[16], values[32] = 1e8, 1.0, -1e8
    assert numerics.row_sum(values).item() == 0.0
    values[16], values[1] = 0.0, 1.0
    assert numerics.row_sum(values).item() == 1.0


def norm_by_steps(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float, centre: bool) -> np.ndarray:
    """One row, each step rounded by numpy, which does as IEEE 754 says."""
    one, width = np.float32(1), np.float32(1) / np.float32(len(x))
    x = x - sum_in_lanes(x) * width if centre else x
    variance = sum_in_lanes(x * x) * width
    return x * (one / np.sqrt(variance + np.float32(eps))) * weight + bias


@pytest.mark.parametrize("width", [1, 15, 16, 33, 97])
def test_layer_norm(width: int) -> None:
    x, weight, bias = torch.randn(40, width) * 3 + 1, torch.randn(width), torch.randn(width)
    found = numerics.layer_norm(x, weight, bias, 1e-5)
    assert torch.allclose(found, torch.nn.functional.layer_norm(x, (width,), weight, bias, 1e-5), atol=2e-5, rtol=1e-5)
    rows = np.stack([norm_by_steps(row, weight.numpy(), bias.numpy(), 1e-5, True) for row in x.numpy()])
    assert np.abs(found.numpy() - rows).max() <= 4e-6
    plain = numerics.layer_norm(x, None, None, 1e-5)
    assert torch.equal(plain * weight + bias, found)


@pytest.mark.parametrize("width", [1, 15, 16, 33, 97])
def test_rms_norm(width: int) -> None:
    x, weight = torch.randn(40, width) * 3 + 1, torch.randn(width)
    found = numerics.rms_norm(x, weight, 1e-6)
    assert torch.allclose(found, torch.nn.functional.rms_norm(x, (width,), weight, 1e-6), atol=2e-5, rtol=1e-5)
    assert torch.equal(numerics.rms_norm(x, None, 1e-6) * weight, found)


@pytest.mark.parametrize("centre", [True, False])
def test_norms_round_as_ieee_754_says(centre: bool) -> None:
    x, weight, bias = torch.randn(3000, 20), torch.randn(20), torch.randn(20) * centre
    found = numerics.layer_norm(x, weight, bias, 1e-5) if centre else numerics.rms_norm(x, weight, 1e-5)
    rows = np.stack([norm_by_steps(row, weight.numpy(), bias.numpy(), 1e-5, centre) for row in x.numpy()])
    assert np.array_equal(found.numpy(), rows)


def test_norm_of_a_constant_row() -> None:
    row, bias = torch.full((1, 64), 7.25), torch.randn(64)
    assert torch.equal(numerics.layer_norm(row, torch.ones(64), bias, 1e-5), bias.unsqueeze(0))
    assert torch.equal(numerics.rms_norm(torch.zeros(1, 64), None, 1e-5), torch.zeros(1, 64))
