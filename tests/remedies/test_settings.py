"""The settings of the remedies: JSON both ways, and refused when they make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optimum_int8 import ConfigError, Int8Config, QuantizationError, quantize
from tests import zoo

SETTINGS: dict[str, Any] = {
    "weight_range": "search",
    "smooth_quant": "fixed",
    "smooth_alpha": 0.7,
    "bias_correction": True,
    "exclude_attention": ("a.b",),
    "accuracy_budget": 0.01,
    "max_trials": 7,
    "timeout": 60.0,
}


def test_round_trip(tmp_path: Path) -> None:
    config = Int8Config(approach="static", **SETTINGS)
    config.save(tmp_path / "config.json")
    assert Int8Config.load(tmp_path / "config.json") == config != Int8Config(approach="static")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight_range", "best"), ("smooth_quant", True), ("smooth_alpha", 1.5), ("bias_correction", "yes"),
        ("exclude_attention", "a.b"), ("accuracy_budget", -0.1), ("accuracy_budget", "1%"), ("max_trials", 0),
        ("max_trials", 2.0), ("timeout", float("inf")), ("timeout", True),
    ],
)  # fmt: skip
def test_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Int8Config(**{name: value})


def test_one_attention_core_stays_float32_and_its_linears_do_not() -> None:
    name = "bert.encoder.layer.0.attention.self"
    described = quantize(zoo.make("bert"), Int8Config(exclude_attention=(name,))).config.quantization_config
    assert described["fp32"] == {name: "its core is excluded by name"}
    assert described["modules"][f"{name}.query"] == "linear"
    with pytest.raises(QuantizationError, match="bert.nowhere"):
        quantize(zoo.make("bert"), Int8Config(exclude_attention=("bert.nowhere",)))
