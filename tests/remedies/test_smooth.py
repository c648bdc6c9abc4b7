"""SmoothQuant: the float model keeps every bit, and outliers no longer ruin the INT8 one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from optimum_int8 import CalibrationError, Int8Config, quantize
from optimum_int8.remedies import smooth_quant
from optimum_int8.remedies.smooth import smoothing_factors
from tests import zoo
from tests.remedies import outliers


def hostile_gpt2() -> nn.Module:
    model = zoo.make("gpt2")
    for block in model.transformer.h:
        outliers.scale_norm(block.ln_1, [block.attn.c_attn])
        outliers.scale_norm(block.ln_2, [block.mlp.c_fc])
    return model


def hostile_bert() -> nn.Module:
    model = zoo.make("bert")
    for layer in model.bert.encoder.layer:
        for _ in range(2):  # random weights make little of attention: 32 times would hardly be felt
            outliers.scale_values(layer.attention.self.value, layer.attention.output.dense)
    return model


HOSTILE = {"gpt2": hostile_gpt2, "bert": hostile_bert}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_outliers_leave_the_function_alone(name: str) -> None:
    model, hostile = zoo.make(name), HOSTILE[name]()
    batch = zoo.inputs(model)
    assert torch.equal(zoo.logits(hostile, batch), zoo.logits(model, batch))


@pytest.mark.parametrize("setting", ["fixed", "search"])
@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_takes_outliers_away(name: str, approach: str, setting: str) -> None:
    hostile = HOSTILE[name]()
    data = [zoo.inputs(hostile, 4, 12, seed) for seed in range(3)]
    batch = zoo.inputs(hostile, 4, 12, 9)
    expected = zoo.logits(hostile, batch)

    def error(**settings: str) -> float:
        config = Int8Config(approach=approach, attention="float32", fuse=False, **settings)
        found = zoo.logits(quantize(hostile, config, data, progress=False), batch)
        return float((found - expected).norm() / expected.norm())

    assert error(smooth_quant=setting) < 0.5 * error()


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_the_float_model_keeps_every_bit(name: str) -> None:
    hostile = HOSTILE[name]()
    smoothed = copy.deepcopy(hostile)
    data = [zoo.inputs(hostile, 4, 12, seed) for seed in range(2)]
    report = smooth_quant(smoothed, Int8Config(approach="static", smooth_quant="search"), data, progress=False)
    batch = zoo.inputs(hostile, 3, 7, 8)
    assert torch.equal(zoo.logits(smoothed, batch), zoo.logits(hostile, batch))
    assert any(alpha is not None for alpha in report.alphas.values())
    changed = [k for k, v in smoothed.state_dict().items() if not torch.equal(v, hostile.state_dict()[k])]
    assert changed


def test_says_what_could_not_be_rescaled() -> None:
    model = zoo.make("bert")
    int8 = quantize(model, Int8Config(smooth_quant="fixed"), [zoo.inputs(model)], progress=False)
    noted = int8.config.quantization_config["remedies"]["smooth_quant"]
    assert "read by add" in noted["skipped"]["bert.encoder.layer.0.intermediate.dense"]
    assert noted["alphas"] == {f"bert.encoder.layer.{i}.attention.self.value": 0.5 for i in (0, 1)}


def test_needs_data() -> None:
    with pytest.raises(CalibrationError, match="smooth_quant 'fixed' needs calibration_data"):
        quantize(zoo.make("bert"), Int8Config(smooth_quant="fixed"))
    with pytest.raises(CalibrationError, match="no batch"):
        quantize(zoo.make("bert"), Int8Config(smooth_quant="fixed"), [])


def test_factors_are_powers_of_two_and_idle_channels_keep_theirs() -> None:
    absmax = torch.tensor([0.0, 1e-3, 0.7, 90.0, 1e30])
    found = smoothing_factors(absmax, torch.tensor([1.0, 0.5, 0.5, 0.0, 1e-30]), 0.5)
    assert torch.equal(torch.frexp(found).mantissa, torch.full((5,), 0.5))
    assert found[0] == found[3] == 1.0 and found[4] == 2.0**12
