"""Round trips: what is saved comes back equal to the bit, by every way of loading, and never as something else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import is_accelerate_available

import optimum_int8
from optimum_int8 import Int8Config, hub, quantize
from optimum_int8.errors import CheckpointError, ConfigError
from optimum_int8.hub import (
    OptimizedModel,
    OptimizedModelForCausalLM,
    OptimizedModelForSequenceClassification,
    register,
)
from tests.hub.helpers import edit_json, logits_of, tiny_tokenizer

FRESH = """
import sys, torch
if sys.argv[3] == "import":
    from optimum_int8 import OptimizedModel
from transformers import AutoModelForSequenceClassification, pipeline
folder, expected = sys.argv[1], torch.load(sys.argv[2], weights_only=True)
loaders = [AutoModelForSequenceClassification] + ([OptimizedModel] if sys.argv[3] == "import" else [])
for loader in loaders:
    model = loader.from_pretrained(folder)
    with torch.no_grad():
        assert torch.equal(model(input_ids=expected["input_ids"]).logits, expected["logits"]), loader
print(pipeline("text-classification", folder)("good film"))
"""


def run_fresh(folder: Path, tmp_path: Path, input_ids: torch.Tensor, logits: torch.Tensor, mode: str):
    torch.save({"input_ids": input_ids, "logits": logits}, tmp_path / "expected.pt")
    command = [sys.executable, "-c", FRESH, str(folder), str(tmp_path / "expected.pt"), mode]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("int8_model", ["static"], indirect=True)
def test_fresh_process_gives_equal_logits(fp32_model, input_ids, logits, tmp_path) -> None:
    fused = quantize(fp32_model, Int8Config(approach="static"), [{"input_ids": input_ids}], progress=False)
    assert torch.equal(logits_of(fused, input_ids), logits)
    folder = OptimizedModel.save_pretrained(fused, tmp_path / "out", tokenizer=tiny_tokenizer())
    result = run_fresh(folder, tmp_path, input_ids, logits, "import")
    assert result.returncode == 0, result.stderr
    assert "'label': 'LABEL_" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("int8_model", ["static"], indirect=True)
def test_plain_transformers_fails_loudly(saved, input_ids, logits, tmp_path) -> None:
    result = run_fresh(saved, tmp_path, input_ids, logits, "plain")
    assert result.returncode != 0
    assert "size mismatch" in result.stderr or "mismatched" in result.stderr
    assert "AssertionError" not in result.stderr  # it did not get as far as answering


@pytest.mark.parametrize(
    "loader", [OptimizedModel, OptimizedModelForSequenceClassification, AutoModelForSequenceClassification]
)
def test_same_class_same_logits(loader, saved: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    model = loader.from_pretrained(saved)
    assert type(model) is DistilBertForSequenceClassification and not model.training
    assert torch.equal(logits_of(model, input_ids), logits)


@pytest.mark.parametrize("dtype", ["auto", torch.float32, torch.bfloat16])
def test_scales_stay_float32(dtype, saved: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(saved, dtype=dtype)
    assert torch.equal(logits_of(model, input_ids), logits)


def test_saved_again(saved: Path, input_ids: torch.Tensor, logits: torch.Tensor, tmp_path: Path) -> None:
    model = OptimizedModel.from_pretrained(saved)
    model.save_pretrained(tmp_path / "by-transformers")
    OptimizedModel.save_pretrained(model, tmp_path / "sharded", max_shard_size="40KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    for name in ("by-transformers", "sharded"):
        assert torch.equal(logits_of(OptimizedModel.from_pretrained(tmp_path / name), input_ids), logits)


def test_headless_model_of_a_task_checkpoint(saved: Path, int8_model: PreTrainedModel, input_ids: torch.Tensor) -> None:
    model = AutoModel.from_pretrained(saved)
    with torch.no_grad():
        found, expected = (m(input_ids=input_ids).last_hidden_state for m in (model, int8_model.distilbert))
    assert torch.equal(found, expected)


def test_fp32_folder_loads_as_it_is(fp32_model: PreTrainedModel, input_ids: torch.Tensor, tmp_path: Path) -> None:
    fp32_model.save_pretrained(tmp_path)
    model = OptimizedModel.from_pretrained(tmp_path)
    assert torch.equal(logits_of(model, input_ids), logits_of(fp32_model, input_ids))
    assert not hasattr(model.config, "quantization_config")


def test_subfolder(saved: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    model = OptimizedModel.from_pretrained(saved.parent, subfolder=saved.name)
    assert torch.equal(logits_of(model, input_ids), logits)


@pytest.mark.parametrize("subfolder", ["..", "a/../../b", "/etc", "a\\..\\b"])
def test_subfolder_stays_inside(subfolder: str, saved: Path) -> None:
    with pytest.raises(CheckpointError, match="subfolder"):
        OptimizedModel.from_pretrained(saved, subfolder=subfolder)


@pytest.mark.parametrize("arguments", [{"trust_remote_code": True}, {"use_safetensors": False}])
def test_unsafe_arguments_are_refused(arguments: dict, saved: Path) -> None:
    with pytest.raises(ConfigError):
        OptimizedModel.from_pretrained(saved, **arguments)


def test_not_instantiated() -> None:
    with pytest.raises(ConfigError, match="from_pretrained"):
        OptimizedModel()


@pytest.mark.parametrize("name", ["PreTrainedModel", "os", "BertModel", "pipeline", "no such", "__doc__", 7])
def test_strange_architectures_are_refused(name, saved: Path, copy: Path) -> None:
    edit_json(copy / "config.json", lambda config: config.update(architectures=[name]))
    with pytest.raises(CheckpointError, match="architecture|cannot be loaded"):
        OptimizedModel.from_pretrained(copy)


def test_fp32_model_is_not_quantized_by_from_pretrained(
    fp32_model: PreTrainedModel, saved: Path, tmp_path: Path
) -> None:
    fp32_model.save_pretrained(tmp_path)
    config = OptimizedModel.from_pretrained(saved).config.quantization_config
    with pytest.raises(ConfigError, match="optimum_int8.quantize"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, quantization_config=config)


LOADERS_OF_DEVICE_MAPS = [
    OptimizedModel,
    pytest.param(
        AutoModelForSequenceClassification,
        marks=pytest.mark.skipif(not is_accelerate_available(), reason="Transformers' device_map needs accelerate"),
    ),
]


@pytest.mark.parametrize("loader", LOADERS_OF_DEVICE_MAPS)
@pytest.mark.parametrize("device", ["cuda:0", {"": "cuda:0"}, {"distilbert": "cpu", "classifier": "meta"}, 0])
def test_device_other_than_cpu_is_refused(loader, device: object, saved: Path) -> None:
    with pytest.raises(ConfigError, match="CPU"):
        loader.from_pretrained(saved, device_map=device)


@pytest.mark.parametrize("loader", LOADERS_OF_DEVICE_MAPS)
@pytest.mark.parametrize("device", ["auto", "cpu", {"": "cpu"}, torch.device("cpu")])
def test_device_map_of_the_cpu(loader, device: object, saved: Path, input_ids, logits) -> None:
    assert torch.equal(logits_of(loader.from_pretrained(saved, device_map=device), input_ids), logits)


def test_registering_again_changes_nothing() -> None:
    register()
    register()


def test_settings_come_back(saved: Path) -> None:
    metadata = OptimizedModel.from_pretrained(saved).config.quantization_config.to_dict()
    assert metadata["quant_method"] == "optimum_int8" and metadata["format_version"] == 1
    assert Int8Config.from_dict(metadata["config"]).approach in ("dynamic", "static")


def test_without_checksums_it_loads_with_a_warning(copy: Path, input_ids, logits, caplog) -> None:
    file = copy / "model.safetensors"
    save_file(load_file(file), file, {"format": "pt"})  # as a tool does that rewrites safetensors files
    model = OptimizedModel.from_pretrained(copy)
    assert torch.equal(logits_of(model, input_ids), logits)
    assert "no checksums" in caplog.text


@pytest.mark.parametrize("method", ["gptq", "fp8", "optimum_int9", None])
def test_foreign_method_is_named(method: str | None, copy: Path) -> None:
    edit_json(copy / "config.json", lambda config: config["quantization_config"].update(quant_method=method))
    with pytest.raises(CheckpointError, match=f"quant_method is {method!r}"):
        OptimizedModel.from_pretrained(copy)


def test_absurd_layers_are_refused_by_the_plug_in(copy: Path) -> None:
    edit_json(copy / "config.json", lambda config: config.update(n_layers=1_000_000_000))
    with pytest.raises(CheckpointError, match="1000000000 layers"):
        AutoModelForSequenceClassification.from_pretrained(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization_config": None}, "no quantization_config"),
        ({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}, "never runs here"),
    ],
)
def test_the_reason_is_named(change: dict, message: str, copy: Path) -> None:
    edit_json(copy / "config.json", lambda config: config.update(change))
    with pytest.raises(CheckpointError, match=message):
        OptimizedModel.from_pretrained(copy)


def test_adapter_is_refused(copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    with pytest.raises(CheckpointError, match="adapter"):
        OptimizedModel.from_pretrained(copy)


def test_every_task_has_an_auto_class() -> None:
    classes = [getattr(hub, name) for name in hub.__all__ if name.startswith("OptimizedModelFor")]
    assert len(classes) == 10
    for task in classes:
        assert issubclass(task, OptimizedModel) and hasattr(transformers, task.auto_class)


def test_classes_for_tasks_are_those_of_the_package() -> None:
    names = {name for name in hub.__all__ if name.startswith("OptimizedModel")}
    assert len(names) == 11 and names <= set(optimum_int8.__all__)
    assert all(getattr(optimum_int8, name) is getattr(hub, name) for name in names)


@pytest.mark.parametrize(
    ("config", "cls"),
    [
        ("ExaoneConfig", "LlamaForCausalLM"),
        ("InternLM3Config", "LlamaForCausalLM"),
        ("IQuestCoderConfig", "LlamaForCausalLM"),
        ("SarvamMoEConfig", "Glm4MoeForCausalLM"),
    ],
)
def test_a_class_that_another_configuration_uses(config: str, cls: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    more = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    made = getattr(transformers, config)(**sizes, **more)
    model = transformers.AutoModelForCausalLM.from_config(made).eval()
    assert type(model).__name__ == cls
    model = quantize(model, Int8Config(fuse=False), progress=False)
    folder = OptimizedModel.save_pretrained(model, tmp_path / "x")
    ids = torch.randint(3, 90, (2, 7))
    for loader in (OptimizedModel, transformers.AutoModelForCausalLM, OptimizedModelForCausalLM):
        loaded = loader.from_pretrained(folder)
        assert type(loaded).__name__ == cls and type(loaded.config).__name__ == config
        assert torch.equal(logits_of(loaded, ids), logits_of(model, ids))


@pytest.mark.parametrize(
    ("config", "cls"),
    [("XLMRobertaConfig", "RobertaModel"), ("RobertaConfig", "BertModel"), ("DeiTConfig", "ViTModel")],
)
def test_a_class_that_only_its_weights_record(config: str, cls: str, tmp_path: Path) -> None:
    """`Sam3TrackerModel` is made for several configurations, and no table says so."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = getattr(transformers, config)(**sizes)
    model = quantize(getattr(transformers, cls)(made).eval(), Int8Config(fuse=False), progress=False)
    folder = OptimizedModel.save_pretrained(model, tmp_path / "x")
    loaded = OptimizedModel.from_pretrained(folder)
    assert type(loaded).__name__ == cls and type(loaded.config).__name__ == config
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    edit_json(folder / "config.json", lambda values: values.update(architectures=["GPT2Model"]))
    with pytest.raises(CheckpointError, match="architectures"):
        OptimizedModel.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["Musicgen", "MusicgenMelody"])
def test_a_configuration_with_several_text_models(kind: str, tmp_path: Path) -> None:
    text = transformers.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    audio = transformers.EncodecConfig(
        hidden_size=16, num_filters=4, upsampling_ratios=[2, 2], codebook_size=16, codebook_dim=16, num_lstm_layers=1
    )
    decoder = getattr(transformers, f"{kind}DecoderConfig")(
        vocab_size=16, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, num_codebooks=2
    )
    config = getattr(transformers, f"{kind}Config")(
        text_encoder=text.to_dict(), audio_encoder=audio.to_dict(), decoder=decoder.to_dict()
    )
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    int8 = quantize(model, Int8Config(fuse=False), progress=False)
    loaded = OptimizedModel.from_pretrained(OptimizedModel.save_pretrained(int8, tmp_path / "x"))
    assert type(loaded) is type(model)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in int8.state_dict().items())
