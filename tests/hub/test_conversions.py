"""Transformers makes its rules for names of tensors for float checkpoints, as ever, and none for INT8 ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, conversion_mapping, core_model_loading, modeling_utils

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.hub.plugin import skip_conversions
from tests import zoo
from tests.models import batch, classifier


def test_rules_are_made_for_float_checkpoints_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(num_hidden_layers=1)
    int8 = quantize(model, Int8Config(approach="dynamic"), progress=False)
    OptimizedModel.save_pretrained(int8, tmp_path / "int8")
    made: list[Any] = []
    find = conversion_mapping.get_checkpoint_conversion_mapping
    monkeypatch.setattr(
        conversion_mapping, "get_checkpoint_conversion_mapping", lambda name: made.append(name) or find(name)
    )
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8")
    assert not made
    assert torch.equal(loaded(**batch()).logits, int8(**batch()).logits)
    skip_conversions()  # a second time changes nothing
    state = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): x for name, x in model.state_dict().items()}
    model.save_pretrained(tmp_path / "float", state_dict=state)
    other = AutoModelForSequenceClassification.from_pretrained(tmp_path / "float")
    assert "legacy" in made
    assert torch.equal(other(**batch()).logits, model(**batch()).logits)


def test_the_function_stands_in_once() -> None:
    skip_conversions()
    first = modeling_utils.get_model_conversion_mapping
    skip_conversions()
    assert modeling_utils.get_model_conversion_mapping is first


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_no_expression_is_made_of_the_name_of_a_tensor(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8 = quantize(zoo.make(name), Int8Config(approach="dynamic"), progress=False)
    OptimizedModel.save_pretrained(int8, tmp_path)
    made: list[Any] = []
    start = core_model_loading.WeightTransform.__init__

    def note(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        start(self, *args, **kwargs)

    monkeypatch.setattr(core_model_loading.WeightTransform, "__init__", note)
    loaded = type(int8).from_pretrained(tmp_path)
    assert len(made) == 1  # of all tensors together
    found = loaded.state_dict()
    assert found.keys() == int8.state_dict().keys()
    assert all(torch.equal(x, found[key]) for key, x in int8.state_dict().items())
