"""Loading FP32 models: what is refused, and in what words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, BertModel

from optimum_int8.errors import CheckpointError, ConfigError
from optimum_int8.quantizers import FeatureExtractionQuantizer, Quantizer, TextClassificationQuantizer, quantizer_for
from optimum_int8.quantizers.steps.loading import load_fp32_model, load_tokenizer

from ..tiny import make_config, make_folder, make_model

HEAD = {"auto_class": "AutoModelForSequenceClassification", "head": "ForSequenceClassification"}


def test_half_precision_is_loaded_in_float32(tmp_path: Path) -> None:
    make_model().half().save_pretrained(tmp_path)
    model = load_fp32_model(tmp_path, **HEAD)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training


def test_a_model_of_another_task(tmp_path: Path) -> None:
    BertForTokenClassification(make_config()).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is a BertForTokenClassification; expected a class that ends in ForSequence"):
        TextClassificationQuantizer.from_pretrained(tmp_path)
    assert type(Quantizer.from_pretrained(tmp_path).model) is BertForTokenClassification


def test_a_head_that_was_never_trained(tmp_path: Path) -> None:
    BertModel(make_config()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"lacks 2 tensors of a BertForSequenceClassification \(classifier.bias"):
        TextClassificationQuantizer.from_pretrained(tmp_path)


def test_already_int8(tmp_path: Path) -> None:
    make_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "optimum_int8", "format_version": 1, "config": {}, "modules": {}, "fp32": {},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="already an INT8 model"):
        TextClassificationQuantizer.from_pretrained(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    for name in (tmp_path / "absent", "./absent", "a/b/c"):
        with pytest.raises(CheckpointError, match="no such folder"):
            load_fp32_model(name)
    with pytest.raises(CheckpointError, match="has no config.json"):
        load_fp32_model(tmp_path)
    with pytest.raises(CheckpointError, match="cannot load the model 'nobody/no-such-model'"):
        load_fp32_model("nobody/no-such-model")


def test_damaged(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="cannot load the model"):
        load_fp32_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot load the model"):
        load_fp32_model(tmp_path)


def test_no_tokenizer_is_said_when_it_is_needed(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    tokenizer, problem = load_tokenizer(tmp_path)
    assert tokenizer is None
    assert problem is not None
    assert problem.endswith("has no tokenizer files")
    quantizer = TextClassificationQuantizer.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"the model has no tokenizer \(.+\); pass tokenizer="):
        quantizer.tokenize([["x"]])


def test_quantizer_for() -> None:
    assert quantizer_for(BertConfig(architectures=["BertForSequenceClassification"])) is TextClassificationQuantizer
    assert quantizer_for(BertConfig(architectures=["BertForNextSentencePrediction"])) is Quantizer
    assert quantizer_for(BertConfig()) is Quantizer
    assert quantizer_for(BertConfig(), "text-classification") is TextClassificationQuantizer
    with pytest.raises(ConfigError, match="unknown task 'poetry'; known ones are text-classification"):
        quantizer_for(BertConfig(), "poetry")


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        ({}, torch.float32),
        ({"dtype": torch.bfloat16}, torch.bfloat16),
        ({"torch_dtype": "float16"}, torch.float16),
        ({"attn_implementation": "eager"}, torch.float32),
        ({"output_hidden_states": True, "output_loading_info": True}, torch.float32),
    ],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize(
    ("quantizer", "cls"),
    [
        (Quantizer, BertForTokenClassification),
        (TextClassificationQuantizer, BertForSequenceClassification),
        (FeatureExtractionQuantizer, BertModel),
    ],
)
def test_arguments_of_transformers(
    quantizer: Any, cls: Any, arguments: dict, dtype: torch.dtype, tmp_path: Path
) -> None:
    cls(make_config()).save_pretrained(tmp_path / "inner")
    model = quantizer.from_pretrained(tmp_path, subfolder="inner", **arguments).model
    assert model.dtype is dtype
    assert model.config._attn_implementation == arguments.get("attn_implementation", "sdpa")
    assert model.config.output_hidden_states == arguments.get("output_hidden_states", False)


def test_a_configuration_that_is_given(tmp_path: Path) -> None:
    make_folder(tmp_path)
    config = make_config(problem_type="regression", architectures=["BertForSequenceClassification"])
    quantizer = TextClassificationQuantizer.from_pretrained(tmp_path, config=config, dtype=torch.float32)
    assert quantizer.model.config.problem_type == "regression"


def test_a_head_of_another_size(tmp_path: Path) -> None:
    make_folder(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks 2 tensors of a BertForSequenceClassification \(classifier.bias"):
        TextClassificationQuantizer.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)


def test_no_such_subfolder(tmp_path: Path) -> None:
    make_folder(tmp_path)
    with pytest.raises(CheckpointError, match="other' has no config.json"):
        TextClassificationQuantizer.from_pretrained(tmp_path, subfolder="other")
