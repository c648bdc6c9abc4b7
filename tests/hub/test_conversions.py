"""Transformers makes its rules for names of tensors for float checkpoints, as ever, and none for INT8 ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, conversion_mapping, modeling_utils

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.hub.plugin import skip_conversions
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
