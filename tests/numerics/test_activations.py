"""Elementary functions: their distance from float64 torch, which their docstrings state, and their ends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from optimum_int8 import numerics as functions

INF, NAN = float("inf"), float("nan")
DENSE = torch.cat(
    [torch.linspace(-20, 20, 200_001), torch.linspace(-1, 1, 20_001), torch.tensor([0.0, -0.0, 4.5, -4.5])]
)


def exactly(function: object, x: Tensor) -> Tensor:
    return function(x.double())  # type: ignore[operator]


def test_exp() -> None:
    expected = exactly(torch.exp, DENSE)
    assert ((functions.exp(DENSE) - expected).abs() / expected).max() < 1.1e-6
    assert functions.exp(torch.zeros(1)).item() == 1.0
    ends = functions.exp(torch.tensor([-1e30, -100.0, -INF, 100.0, 1e30, INF]))
    assert ends.tolist() == [2.0**-125] * 3 + [2.0**126] * 3


def test_softmax_weight() -> None:
    powers = torch.linspace(-40, 0, 400_001)
    expected = 255.0 * exactly(torch.exp2, powers)
    assert ((functions.softmax_weight(powers) - expected).abs() / expected).max() < 1.1e-4
    assert functions.softmax_weight(torch.tensor([0.0, -1.0, -2.0, -1e30, -INF, NAN])).tolist() == [
        255.0,
        127.5,
        63.75,
        *[255 * 2.0**-125] * 3,
    ]


def test_gelu() -> None:
    assert (functions.gelu(DENSE) - exactly(torch.nn.functional.gelu, DENSE)).abs().max() < 1.6e-5
    assert functions.gelu(torch.tensor([5.0, 100.0, 1e30])).tolist() == [5.0, 100.0, float(torch.tensor(1e30))]
    assert functions.gelu(torch.tensor([-4.5, -5.0, -100.0])).abs().max() < 1e-5


def test_gelu_tanh() -> None:
    expected = exactly(lambda x: torch.nn.functional.gelu(x, approximate="tanh"), DENSE)
    assert (functions.gelu_tanh(DENSE) - expected).abs().max() < 1.4e-5
    assert functions.gelu_tanh(torch.tensor([5.0, 100.0, -5.0, -100.0])).tolist() == [5.0, 100.0, 0.0, 0.0]


def test_silu() -> None:
    assert (functions.silu(DENSE) - exactly(torch.nn.functional.silu, DENSE)).abs().max() < 4e-6


def test_tanh() -> None:
    found = functions.tanh(DENSE)
    assert (found - exactly(torch.tanh, DENSE)).abs().max() < 2e-7
    assert torch.equal(found, -functions.tanh(-DENSE)) and found.abs().max() <= 1.0
    assert math.copysign(1.0, functions.tanh(torch.tensor(-0.0)).item()) == -1.0


def test_relu() -> None:
    assert functions.relu(torch.tensor([-1.0, -0.0, 0.0, 2.0, INF, -INF, NAN])).tolist() == [0, 0, 0, 2, INF, 0, 0]


@pytest.mark.parametrize("name", functions.ACTIVATIONS)
def test_activations_of_large_values(name: str) -> None:
    found = functions.ACTIVATIONS[name](torch.tensor([1e4, -1e4, 0.0]))
    expected = {"none": [1e4, -1e4, 0.0], "tanh": [1.0, -1.0, 0.0]}.get(name, [1e4, 0.0, 0.0])
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
