"""Models from a configuration alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTModel

from optimum_int8.errors import ConfigError
from optimum_int8.evaluation.architectures import PRESETS, example_inputs, find_config, make_config, random_model

SMALL = {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 64, "vocabulary": 100}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_sound(name: str) -> None:
    config = find_config(name)
    assert config.hidden_size % config.num_attention_heads == 0
    assert config.intermediate_size if config.model_type != "distilbert" else config.hidden_dim == 4 * config.dim


def test_long_names_of_presets() -> None:
    assert find_config("google-bert/bert-base-uncased").to_dict() == find_config("bert-base").to_dict()
    assert find_config("albert-base-v2").hidden_size == 768


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "electra", "albert", "gpt2", "t5"])
def test_a_model_of_each_type_runs(model_type: str) -> None:
    sizes = {k: v for k, v in SMALL.items() if model_type != "t5" or k != "heads"}
    model = random_model(make_config(model_type, **sizes))
    assert model.config.hidden_size == 32
    assert model.config.num_hidden_layers == 1
    with torch.no_grad():
        output = model(**example_inputs(model, 2, 7))[0]
    assert output.shape[:2] == (2, 7)
    assert torch.isfinite(output).all()


def test_the_same_weights_every_time_and_no_trace_in_the_generator() -> None:
    before = torch.random.get_rng_state()
    first, second = (random_model(make_config("bert", **SMALL)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())


def test_half_precision_in_the_configuration_is_ignored() -> None:
    config = make_config("bert", **SMALL)
    config.dtype = torch.float16
    assert random_model(config).dtype == torch.float32


def test_images() -> None:
    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32)
    config.architectures = ["ViTModel"]
    model = random_model(config)
    assert type(model) is ViTModel
    assert example_inputs(model, 3, 1)["pixel_values"].shape == (3, 3, 32, 32)


def test_a_size_that_the_type_does_not_have() -> None:
    with pytest.raises(ConfigError, match="a squeezebert2 |unknown model type"):
        make_config("squeezebert2", hidden=3)
    with pytest.raises(ConfigError, match="has no vocabulary size"):
        make_config("vit", vocabulary=3)


def test_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(ConfigError, match="is not a model configuration"):
        find_config(str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(ConfigError, match="is not a model configuration"):
        find_config(str(tmp_path))
