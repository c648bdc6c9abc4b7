"""Bias correction takes the mean error away; the weight search never does worse than the largest weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from optimum_int8 import Int8Config, numerics, quantize
from optimum_int8.remedies import Inputs, collect_inputs, mean_errors, search_weight_scale
from tests import zoo

DRAW = torch.Generator().manual_seed(0)


def test_the_mean_output_of_a_layer_is_that_of_the_float_one() -> None:
    layer = nn.Sequential(nn.Linear(64, 16))
    data = [torch.rand(40, 64, generator=DRAW) for _ in range(3)]  # inputs of one sign: rounding errors do not cancel

    def mean_error(**settings: Any) -> float:
        config = Int8Config(approach="static", weight_granularity="per_tensor", **settings)
        int8 = quantize(layer, config, data, progress=False)
        with torch.no_grad():
            return float(sum((int8(x) - layer(x)).sum(0) for x in data).abs().max() / 120)

    plain, corrected = mean_error(), mean_error(bias_correction=True)
    assert plain > 1e-4 and corrected < 1e-5


def test_padding_does_not_count() -> None:
    model = zoo.make("bert")
    batch = zoo.inputs(model)
    other = {**batch, "input_ids": torch.where(batch["attention_mask"] == 0, 7, batch["input_ids"])}
    config = Int8Config(approach="static", bias_correction=True, weight_range="search")
    one, two = (quantize(model, config, [b], progress=False) for b in (batch, other))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_linears_without_bias_stay_without() -> None:
    model = zoo.make("llama")
    int8 = quantize(model, Int8Config(approach="static", bias_correction=True), [zoo.inputs(model)], progress=False)
    assert all(module.bias is None for module in int8.modules() if hasattr(module, "panels"))
    assert int8.config.quantization_config["remedies"]["bias_correction"] == {"corrected": 0}


def test_mean_errors_leave_the_model_alone() -> None:
    layer = nn.Sequential(nn.Linear(4, 2))
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    found = mean_errors(layer, {"0": nn.Linear(4, 2)}, [torch.ones(3, 4)], progress=False)
    assert found["0"].shape == (2,) and all(torch.equal(before[k], v) for k, v in layer.state_dict().items())
    assert not layer[0]._forward_hooks


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("rows", [None, torch.randn(50, 256, generator=DRAW)])
def test_the_search_beats_the_largest_weight(per_channel: bool, rows: torch.Tensor | None) -> None:
    weight = torch.randn(12, 256, generator=DRAW) * 0.02
    weight[:, 3] = 0.5  # an outlier that costs all others their precision
    weight[5, 3] = 0.0
    if rows is not None:
        rows = rows.clone()
        rows[:, 3] *= 1e-3

    def error(scale: torch.Tensor) -> torch.Tensor:
        q, _ = numerics.quantize_weight(weight, scale=scale)
        difference = q.float() * scale.unsqueeze(1) - weight
        return (difference if rows is None else rows @ difference.T).square().sum(1 if rows is None else 0)

    whole = numerics.quantize_weight(weight, per_channel)[1]
    found = search_weight_scale(weight, rows, per_channel)
    better, plain = error(found), error(whole)
    assert bool((better <= plain).all()) if per_channel else float(better.sum()) <= float(plain.sum())
    if rows is not None:
        assert float(better.sum()) < 0.5 * float(plain.sum())
    assert found.shape == (12,) and (per_channel or len(found.unique()) == 1)


def test_a_tied_head_keeps_the_scales_of_its_table() -> None:
    model = zoo.make("gpt2")
    int8 = quantize(model, Int8Config(approach="static", weight_range="search"), [zoo.inputs(model)], progress=False)
    state = int8.state_dict()
    assert torch.equal(state["lm_head.weight_scale"], state["transformer.wte.weight_scale"])
    plain = quantize(model, Int8Config(approach="static"), [zoo.inputs(model)], progress=False).state_dict()
    assert torch.equal(state["lm_head.weight"], plain["lm_head.weight"])
    assert not torch.equal(
        state["transformer.h.0.mlp.c_fc.weight_scale"], plain["transformer.h.0.mlp.c_fc.weight_scale"]
    )


def test_a_sample_is_fair_and_bounded() -> None:
    inputs = Inputs(count=200)
    for start in range(0, 4000, 50):
        inputs.add(torch.arange(start, start + 50).float().unsqueeze(1))
    assert inputs.rows.shape == (200, 1) and float(inputs.absmax) == 3999.0
    assert 1600 < float(inputs.rows.mean()) < 2400 and len(inputs.rows.unique()) == 200


def test_only_reached_modules_have_inputs() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "idle": nn.Linear(4, 4)})
    model.forward = model["used"].forward  # type: ignore[method-assign]
    wrapper = nn.Sequential(model["used"])
    assert set(collect_inputs(wrapper, ["0"], [torch.ones(2, 4)], progress=False)) == {"0"}
