"""Copies of models that `copy.deepcopy` refuses, and weights that are computed from others."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from optimum_int8 import Int8Config, QuantConf, QuantizationError, calibrate, convert, quantize
from optimum_int8.training import prepare_qat

X = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))


def old_weight_norm(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nn.utils.weight_norm(module)


class Keeps(nn.Linear):
    """Keeps its last output, as some models keep hidden states and losses."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


class Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return value * 2


def doubled(name: str) -> nn.Module:
    module = nn.Linear(16, 16)
    parametrize.register_parametrization(module, name, Doubled())
    return module


def model(first: nn.Module) -> nn.Sequential:
    return nn.Sequential(first, nn.Linear(16, 4)).eval()


def error(int8: nn.Module, float_model: nn.Module) -> float:
    with torch.no_grad():
        found, expected = int8(X), float_model(X)
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("kind", ["old weight norm", "kept output", "kept in a buffer"])
def test_models_that_deepcopy_refuses(kind: str, approach: str) -> None:
    torch.manual_seed(0)
    made = model(old_weight_norm(nn.Linear(16, 16)) if kind == "old weight norm" else Keeps(16, 16))
    made(X)  # with gradients on
    if kind == "kept in a buffer":
        made.register_buffer("state", made[0].last.mean(0))
    int8 = quantize(made, Int8Config(approach=approach), [X], progress=False)
    assert 0 < error(int8, made) < 0.03
    assert made(X).grad_fn is not None


@pytest.mark.parametrize("road", ["recipe", "training"])
def test_other_roads_copy_too(road: str) -> None:
    made = model(nn.Linear(16, 16))
    made.register_buffer("state", made[0].weight.mean(0))
    if road == "training":
        assert error(prepare_qat(made, Int8Config(approach="qat"), [X], progress=False), made) < 0.03
        return
    conf = QuantConf()
    with calibrate(conf), torch.no_grad():
        made(X)
    assert 0 < error(convert(made, conf, X), made) < 0.03


@pytest.mark.parametrize("held", [threading.Lock(), (i for i in range(3))], ids=["lock", "generator"])
def test_what_cannot_be_copied_is_named(held: Any) -> None:
    made = model(nn.Linear(16, 16))
    made.held = held
    with pytest.raises(QuantizationError, match=r"Sequential cannot be copied \(TypeError: .*inplace=True"):
        quantize(made, Int8Config(), progress=False)
    assert error(quantize(made, Int8Config(), inplace=True, progress=False), model(nn.Linear(16, 16))) > 0


COMPUTED = {
    "WeightNorm": lambda: weight_norm(nn.Linear(16, 16)),
    "SpectralNorm": lambda: spectral_norm(nn.Linear(16, 16)),
    "Doubled": lambda: doubled("weight"),
    "bias": lambda: doubled("bias"),
    "before each call": lambda: old_weight_norm(nn.Linear(16, 16)),
}


@pytest.mark.parametrize("by", COMPUTED)
def test_computed_weights_stay_float_with_the_reason(by: str) -> None:
    torch.manual_seed(0)
    made = model(COMPUTED[by]())
    int8 = quantize(made, Int8Config(), progress=False)
    reason: str = int8.int8_metadata["fp32"]["0"]  # type: ignore[index, assignment]
    assert "computed from others" in reason
    assert by in reason
    assert 0 < error(int8, made) < 0.03


def test_new_factors_of_an_old_weight_norm_count() -> None:
    """Its `weight` is that of the last call: quantizing it would give the values from before the new ones were loaded."""
    torch.manual_seed(0)
    made = model(old_weight_norm(nn.Linear(16, 16)))
    with torch.no_grad():
        made(X)
        made.load_state_dict({k: v * 3 if k.endswith("weight_g") else v for k, v in made.state_dict().items()})
    assert 0 < error(quantize(made, Int8Config(), progress=False), made) < 0.03
