"""A quantizer with an accuracy budget: the task's own metric, a log beside the folder, the report inside it and in the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import PreTrainedModel

from optimum_int8 import ConfigError, Int8Config, OptimizedModel, TextClassificationQuantizer
from optimum_int8.hub import CardInfo
from optimum_int8.hub.card import render_card
from tests.hub.server import Hub
from tests.quantizers.tiny import make_dataset, make_model, make_tokenizer

LAYER = "bert.encoder.layer.1.output.dense"
IMPOSSIBLE = Int8Config(approach="static", accuracy_budget=0.0)


@pytest.fixture
def quantizer() -> TextClassificationQuantizer:
    return TextClassificationQuantizer(make_model(), make_tokenizer())


def wants_one_layer_in_float(quantizer: TextClassificationQuantizer) -> None:
    """A metric that only a model with `LAYER` in FP32 satisfies."""
    predictions = quantizer.predictions

    def spoilt(model: PreTrainedModel, *arguments: Any) -> list[Any]:
        found = predictions(model, *arguments)
        return found if type(model.get_submodule(LAYER)) is nn.Linear else [1 - label for label in found]

    quantizer.predictions = spoilt  # type: ignore[method-assign]


def test_a_kept_budget_is_one_trial(quantizer: TextClassificationQuantizer, tmp_path: Path) -> None:
    data = make_dataset(quantizer.model, 24)
    config = Int8Config(approach="static", accuracy_budget=0.5, fuse=False)
    quantizer.quantize(config, data, tmp_path / "int8", evaluation_dataset=data)
    assert quantizer.tuning is not None and quantizer.tuning.report.met
    log = json.loads((tmp_path / "int8.trials.json").read_text())
    assert [trial["what"] for trial in log["trials"]] == ["as configured"] and log["baseline"] == 1.0
    metadata = OptimizedModel.from_pretrained(tmp_path / "int8").config.quantization_config.to_dict()
    assert metadata["tuning"]["met"] and metadata["config"]["accuracy_budget"] == 0.5
    quantizer.quantize(Int8Config(approach="static"), data)
    assert quantizer.tuning is None


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_the_report_is_saved_and_published(
    approach: str, quantizer: TextClassificationQuantizer, tmp_path: Path, hub: Hub
) -> None:
    data = make_dataset(quantizer.model, 24)
    wants_one_layer_in_float(quantizer)
    config = Int8Config(approach=approach, accuracy_budget=0.2, fuse=False)
    quantizer.quantize(config, data if approach == "static" else None, tmp_path / "int8", evaluation_dataset=data)
    report = quantizer.tuning.report  # type: ignore[union-attr]
    assert report.met and LAYER in [site.name for site in report.fp32]
    assert (tmp_path / "int8" / "sensitivity.html").exists() and (tmp_path / "int8" / "sensitivity.png").exists()
    quantizer.push_to_hub("alice/tuned", card_info=CardInfo())
    files = hub.store.repositories["alice/tuned"].files()
    assert {"sensitivity.html", "sensitivity.png", "README.md"} <= set(files)
    card = files["README.md"].data.decode()
    assert "relative loss is kept" in card and "](sensitivity.html)" in card
    assert f"`{LAYER}` (linear)" in card


def test_without_data_to_measure_on(quantizer: TextClassificationQuantizer) -> None:
    data = make_dataset(quantizer.model, 8)
    with pytest.raises(ConfigError, match="nothing to measure it on; pass evaluation_dataset"):
        quantizer.quantize(IMPOSSIBLE, data)
    with pytest.raises(ConfigError, match="expected one of them"):
        quantizer.quantize(Int8Config(approach="qat", accuracy_budget=0.1), train_dataset=data, evaluation_dataset=data)


def test_a_card_without_tuning_says_nothing_of_it(quantizer: TextClassificationQuantizer) -> None:
    model = quantizer.quantize(Int8Config())
    card = render_card("a/b", {"architectures": ["X"], "quantization_config": model.config.quantization_config})
    assert "Accuracy" not in card and "sensitivity" not in card
