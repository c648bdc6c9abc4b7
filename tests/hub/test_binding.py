"""The weights carry the settings they were made under: a `config.json` that says something else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from optimum_int8 import Int8Config, quantize
from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel, OptimizedModelForSequenceClassification, binding
from tests.hub.helpers import edit_json, edit_tensors, logits_of

APPROACHES = ("static",)
LOADERS = [OptimizedModel, OptimizedModelForSequenceClassification, AutoModelForSequenceClassification]


def settings(**changes: Any) -> Callable[[dict], Any]:
    return lambda config: config["quantization_config"]["config"].update(changes)


EDITS: dict[str, tuple[Callable[[dict], Any], str]] = {
    "activation_bits": (settings(activation_bits=4), "activation_bits: 4, and the weights were made under 8"),
    "attention": (settings(attention="float32"), 'attention: "float32"'),
    "weight_granularity": (settings(weight_granularity="per_tensor"), "weight_granularity"),
    "exclude": (settings(exclude=["classifier"]), "exclude"),
    "residuals": (settings(residuals="float32"), "residuals"),
    "a setting removed": (lambda c: c["quantization_config"]["config"].pop("attention"), "attention: null"),
    "n_heads": (lambda c: c.update(n_heads=4), "n_heads: 4, and the weights were made under 2"),
    "activation": (lambda c: c.update(activation="relu"), 'activation: "relu"'),
    "sinusoidal_pos_embds": (lambda c: c.update(sinusoidal_pos_embds=True), "sinusoidal_pos_embds: true"),
    "pad_token_id": (lambda c: c.update(pad_token_id=7), "pad_token_id"),
    "a setting of the model removed": (
        lambda c: c.pop("sinusoidal_pos_embds") or c.pop("max_position_embeddings"),
        "max_position_embeddings: 512",
    ),
    "a setting added": (lambda c: c.update(chunk_size_feed_forward=3), "chunk_size_feed_forward: 3"),
    "fp32": (lambda c: c["quantization_config"]["fp32"].update({"x": "y"}), "quantization_config.fp32"),
    "a module removed": (
        lambda c: c["quantization_config"]["modules"].pop("distilbert.transformer.layer.0.attention"),
        "quantization_config.modules",
    ),
    "per_token": (
        lambda c: c["quantization_config"].update(per_token=["classifier"]),
        "per_token",
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("edit", EDITS)
def test_edited_settings_are_refused(edit: str, loader: Any, copy: Path) -> None:
    change, message = EDITS[edit]
    edit_json(copy / "config.json", change)
    with pytest.raises(CheckpointError) as caught:
        loader.from_pretrained(copy)
    assert message in str(caught.value) and "pass it to from_pretrained" in str(caught.value)


@pytest.mark.parametrize("names", [[], None, ["DistilBertModel"], ["DistilBertForTokenClassification"]])
def test_edited_architectures_are_refused(names: Any, copy: Path, input_ids, logits) -> None:
    edit_json(copy / "config.json", lambda config: config.update(architectures=names))
    with pytest.raises(CheckpointError, match="architectures"):
        OptimizedModel.from_pretrained(copy)
    for loader in LOADERS[1:]:  # here the caller chooses the class
        assert torch.equal(logits_of(loader.from_pretrained(copy), input_ids), logits)


def test_a_checkpoint_of_an_earlier_version_without_architectures(copy: Path) -> None:
    drop_binding(copy)
    edit_json(copy / "config.json", lambda config: config.update(architectures=[]))
    with pytest.raises(CheckpointError, match="the head of the model would be lost"):
        OptimizedModel.from_pretrained(copy)


@pytest.mark.parametrize("loader", LOADERS)
def test_the_caller_may_choose_another_value(loader: Any, copy: Path, input_ids, logits) -> None:
    model = loader.from_pretrained(copy, activation="relu")
    assert model.config.activation == "relu"
    assert not torch.equal(logits_of(model, input_ids), logits)
    config = AutoConfig.from_pretrained(copy)
    config.quantization_config["config"]["exclude"] = ["nothing"]
    assert torch.equal(logits_of(loader.from_pretrained(copy, config=config), input_ids), logits)
    edit_json(copy / "config.json", lambda values: values.update(activation="relu", n_heads=4))
    repaired = loader.from_pretrained(copy, activation="gelu", n_heads=2)
    assert torch.equal(logits_of(repaired, input_ids), logits)
    with pytest.raises(CheckpointError, match="n_heads"):
        loader.from_pretrained(copy, activation="gelu")


@pytest.mark.parametrize("loader", LOADERS)
def test_harmless_settings_may_be_edited(loader: Any, copy: Path, input_ids, logits) -> None:
    labels = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    more = {"problem_type": "regression", "_name_or_path": "x", "dtype": "bfloat16", "output_hidden_states": True}
    edit_json(copy / "config.json", lambda config: config.update(**labels, **more))
    assert torch.equal(logits_of(loader.from_pretrained(copy), input_ids), logits)


def test_written_anew_by_another_transformers(copy: Path, input_ids, logits) -> None:
    def rewrite(config: dict) -> None:
        del config["activation"]  # the default, which another version need not write
        config.update(transformers_version="9.0.0", invented_since=True)

    edit_json(copy / "config.json", rewrite)
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(copy), input_ids), logits)
    edit_json(copy / "config.json", lambda config: config.update(n_heads=4))
    with pytest.raises(CheckpointError, match="n_heads"):
        OptimizedModel.from_pretrained(copy)


def test_saved_again_by_every_way(copy: Path, tmp_path: Path, input_ids, logits) -> None:
    headers = [header_of(copy)]
    for number, save in enumerate([OptimizedModel.save_pretrained, lambda model, to: model.save_pretrained(to)] * 2):
        copy, source = tmp_path / str(number), copy
        model = OptimizedModel.from_pretrained(source)
        assert torch.equal(logits_of(model, input_ids), logits)
        save(model, copy)
        headers.append(header_of(copy))
    assert len(set(headers)) == 1
    AutoConfig.from_pretrained(copy).save_pretrained(copy)
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(copy), input_ids), logits)


def test_a_checkpoint_of_an_earlier_version_loads_as_before(copy: Path, input_ids, logits) -> None:
    drop_binding(copy)
    for loader in LOADERS:
        assert torch.equal(logits_of(loader.from_pretrained(copy), input_ids), logits)


def test_shards_of_two_models(copy: Path, tmp_path: Path) -> None:
    model = OptimizedModel.from_pretrained(copy)
    OptimizedModel.save_pretrained(model, tmp_path / "one", max_shard_size="40KB")
    model.config.pad_token_id = 7
    OptimizedModel.save_pretrained(model, tmp_path / "two", max_shard_size="40KB")
    shard = sorted((tmp_path / "one").glob("model-*"))[1]
    shard.write_bytes((tmp_path / "two" / shard.name).read_bytes())
    with pytest.raises(CheckpointError, match="different settings"):
        OptimizedModel.from_pretrained(tmp_path / "one")


@pytest.mark.parametrize(
    "value", ["", "{}", "00000000 {}", "nonsense", "b2a8a5f4 [" + "[" * 100_000, "0 " + json.dumps({"n_heads": 2})]
)
def test_a_damaged_value(value: str, copy: Path) -> None:
    edit_header(copy, value)
    with pytest.raises(CheckpointError, match="optimum_int8_config"):
        OptimizedModel.from_pretrained(copy)


@pytest.mark.parametrize("key", ["surprise", "modules ", "quant_config", "run"])
@pytest.mark.parametrize("loader", LOADERS)
def test_unknown_keys_of_the_quantization(key: str, loader: Any, copy: Path) -> None:
    drop_binding(copy)
    edit_json(copy / "config.json", lambda config: config["quantization_config"].update({key: 1}))
    with pytest.raises(CheckpointError, match="unknown key"):
        loader.from_pretrained(copy)


def test_a_doubled_name(copy: Path) -> None:
    drop_binding(copy)
    name = "distilbert.transformer.layer.0.ffn.lin2"
    edit_json(copy / "config.json", lambda config: config["quantization_config"].update(per_token=[name, name]))
    with pytest.raises(CheckpointError, match="per_token"):
        OptimizedModel.from_pretrained(copy)


FAMILIES = {
    "clip": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            vision_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32},
        )
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
        )
    ),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=100, d_model=32, d_ff=64, num_layers=1, num_heads=2, d_kv=16)
    ),
}
NESTED = {
    "clip": lambda c: c["vision_config"].update(hidden_act="relu"),
    "llama": lambda c: c["rope_parameters"].update(rope_theta=20000.0),
    "t5": lambda c: c.update(relative_attention_max_distance=64),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families(family: str, tmp_path: Path) -> None:
    model = quantize(FAMILIES[family]().eval(), Int8Config(fuse=False), progress=False)
    OptimizedModel.save_pretrained(model, tmp_path / "a")
    OptimizedModel.save_pretrained(OptimizedModel.from_pretrained(tmp_path / "a"), tmp_path / "b")
    assert header_of(tmp_path / "a") == header_of(tmp_path / "b")
    edit_json(tmp_path / "b" / "config.json", NESTED[family])
    for loader in (OptimizedModel, AutoModel):
        with pytest.raises(CheckpointError, match="were made under"):
            loader.from_pretrained(tmp_path / "b")


def header_of(folder: Path) -> str:
    with safe_open(folder / "model.safetensors", framework="pt") as handle:
        return str(handle.metadata()[binding.BINDING_KEY])


def edit_header(folder: Path, value: str | None) -> None:
    edit_tensors(folder / "model.safetensors", lambda tensors: None, metadata={binding.BINDING_KEY: value})


def drop_binding(folder: Path) -> None:
    """As a checkpoint of an earlier version."""
    edit_header(folder, None)


MAMBA: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32}
HYBRID = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 64}


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        ("Mamba2", {"num_hidden_layers": 1, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}),
        (
            "NemotronH",
            {**HYBRID, "layers_block_type": ["mamba", "attention"], "head_dim": 16, "mamba_num_heads": 4}
            | {"mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1},
        ),
        (
            "GraniteMoeHybrid",
            {**HYBRID, "num_hidden_layers": 2, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 64}
            | {"num_local_experts": 0, "num_experts_per_tok": 0, "mamba_n_heads": 4, "mamba_d_head": 16}
            | {"mamba_d_state": 8, "mamba_n_groups": 1},
        ),
    ],
)
def test_a_setting_that_json_has_no_number_for(cls: str, values: dict, tmp_path: Path) -> None:
    limit = (0.0, float("inf"))
    config = getattr(transformers, f"{cls}Config")(**MAMBA, **values, time_step_limit=limit)
    model = quantize(getattr(transformers, f"{cls}ForCausalLM")(config).eval(), Int8Config(fuse=False), progress=False)
    folder = OptimizedModel.save_pretrained(model, tmp_path / "x")
    loaded, ids = OptimizedModel.from_pretrained(folder), torch.arange(2, 16).view(2, 7)
    assert tuple(loaded.config.time_step_limit) == limit
    assert torch.equal(logits_of(loaded, ids), logits_of(model, ids))
    edit_json(folder / "config.json", lambda stored: stored.update(time_step_limit=[0.0, 2.0]))
    with pytest.raises(CheckpointError, match="time_step_limit"):
        OptimizedModel.from_pretrained(folder)
