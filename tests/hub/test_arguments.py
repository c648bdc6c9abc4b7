"""Arguments of `from_pretrained` that Transformers takes: every loader takes them, with the same effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel, OptimizedModelForSequenceClassification
from tests.hub.helpers import logits_of

APPROACHES = ("dynamic",)
LOADERS = [OptimizedModel, OptimizedModelForSequenceClassification, AutoModelForSequenceClassification]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"num_labels": 3},
        {"output_hidden_states": True},
        {"problem_type": "regression"},
        {"id2label": {0: "good", 1: "bad", 2: "so-so"}},
        {"seq_classif_dropout": 0.4},
        {"output_hidden_states": True, "problem_type": "regression", "dtype": "auto"},
    ],
    ids=lambda settings: "+".join(settings),
)
def test_settings_of_the_configuration(loader: Any, settings: dict[str, Any], saved: Path, input_ids, logits) -> None:
    model = loader.from_pretrained(saved, **settings)
    wanted = {key: value for key, value in settings.items() if key != "dtype"}
    assert {key: getattr(model.config, key) for key in wanted} == wanted
    with torch.no_grad():
        output = model(input_ids=input_ids)
    assert torch.equal(output.logits, logits)
    assert ("hidden_states" in output) == settings.get("output_hidden_states", False)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": torch.float32},
        {"torch_dtype": torch.float32},
        {"dtype": "auto"},
        {"device_map": "cpu"},
        {"attn_implementation": "sdpa"},
        {"local_files_only": True},
        {"low_cpu_mem_usage": True},
    ],
    ids=lambda arguments: "+".join(arguments),
)
def test_arguments_of_loading(loader: Any, arguments: dict[str, Any], saved: Path, input_ids, logits) -> None:
    assert torch.equal(logits_of(loader.from_pretrained(saved, **arguments), input_ids), logits)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_folder_as_configuration(loader: Any, saved: Path, input_ids, logits) -> None:
    model = loader.from_pretrained(saved, config=str(saved), problem_type="regression")
    assert model.config.problem_type == "regression"
    assert torch.equal(logits_of(model, input_ids), logits)


@pytest.mark.parametrize("loader", LOADERS)
def test_subfolder_with_settings(loader: Any, saved: Path, input_ids, logits) -> None:
    model = loader.from_pretrained(saved.parent, subfolder=saved.name, num_labels=3, output_hidden_states=True)
    assert model.config.output_hidden_states
    assert torch.equal(logits_of(model, input_ids), logits)


def test_settings_of_an_fp32_model(fp32_model: PreTrainedModel, tmp_path: Path) -> None:
    fp32_model.save_pretrained(tmp_path)
    model = OptimizedModel.from_pretrained(tmp_path, problem_type="regression", dtype=torch.bfloat16)
    assert model.config.problem_type == "regression"
    assert model.dtype is torch.bfloat16


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16"])
def test_another_dtype_is_said_once(loader: Any, dtype: Any, saved: Path, input_ids, logits, caplog) -> None:
    model = loader.from_pretrained(saved, dtype=dtype)
    assert [record.levelname for record in caplog.records if "loaded in float32, not in" in record.message] == [
        "WARNING"
    ]
    assert model.dtype is model.config.dtype is torch.float32
    assert torch.equal(logits_of(model, input_ids), logits)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("settings", [{}, {"dtype": "auto"}, {"device_map": "auto"}, {"dtype": torch.float32}])
def test_float32_needs_no_word(loader: Any, settings: dict[str, Any], saved: Path, input_ids, logits, caplog) -> None:
    model = loader.from_pretrained(saved, **settings)
    assert "loaded in float32" not in caplog.text
    assert model.dtype is torch.float32
    assert model.device.type == "cpu"
    assert torch.equal(logits_of(model, input_ids), logits)


def test_an_argument_that_nobody_knows(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="unexpected keyword argument 'nonsense'"):
        OptimizedModel.from_pretrained(saved, nonsense=1)
