"""A checkpoint is written completely or not at all."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    SwinConfig,
    SwinForImageClassification,
    TextNetConfig,
    TextNetForImageClassification,
)

from optimum_int8 import Int8Config, quantize
from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel, save
from optimum_int8.hub.checkpoint import CHECKSUMS_KEY, checksums
from tests.hub.helpers import logits_of, tiny_tokenizer


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 20,000 bytes: the kernel refuses the write, as it does when the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("existing", [False, True])
def test_full_disk_leaves_nothing_half_written(existing: bool, int8_model: PreTrainedModel, copy: Path) -> None:
    target = copy if existing else copy.parent / "new"
    before = {path: path.read_bytes() for path in copy.parent.rglob("*") if path.is_file()}
    with full_disk(), pytest.raises(CheckpointError, match="cannot save to"):
        OptimizedModel.save_pretrained(int8_model, target)
    assert {path: path.read_bytes() for path in copy.parent.rglob("*") if path.is_file()} == before
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_failure_while_writing_leaves_the_old_checkpoint(
    copy: Path, int8_model: PreTrainedModel, input_ids: torch.Tensor, logits: torch.Tensor
) -> None:
    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"):
        OptimizedModel.save_pretrained(int8_model, copy, tokenizer=Broken())
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(copy), input_ids), logits)


def test_saving_over_another_layout_leaves_no_stale_weights(
    copy: Path, int8_model: PreTrainedModel, input_ids: torch.Tensor, logits: torch.Tensor
) -> None:
    (copy / "README.md").write_text("mine")
    OptimizedModel.save_pretrained(int8_model, copy, max_shard_size="40KB")
    assert not (copy / "model.safetensors").exists()
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(copy), input_ids), logits)
    OptimizedModel.save_pretrained(int8_model, copy, tokenizer=tiny_tokenizer())
    assert [path.name for path in copy.glob("model*")] == ["model.safetensors"]
    assert (copy / "README.md").read_text() == "mine" and (copy / "tokenizer.json").is_file()
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(copy), input_ids), logits)


def test_weights_are_as_readable_as_the_config(saved: Path) -> None:
    assert (saved / "model.safetensors").stat().st_mode == (saved / "config.json").stat().st_mode


def test_a_file_in_the_way(int8_model: PreTrainedModel, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        save.save_pretrained(int8_model, tmp_path / "taken")


def test_fp32_model_is_refused(fp32_model: PreTrainedModel, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not an INT8 model"):
        OptimizedModel.save_pretrained(fp32_model, tmp_path / "out")
    with pytest.raises(CheckpointError, match="no Transformers model"):
        OptimizedModel.save_pretrained(torch.nn.Linear(2, 2), tmp_path / "out")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_transformers_own_saving_right_after_quantize_writes_checksums(
    fp32_model: PreTrainedModel, input_ids: torch.Tensor, tmp_path: Path
) -> None:
    model = quantize(fp32_model, Int8Config(fuse=False), progress=False)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as handle:
        assert handle.metadata()[CHECKSUMS_KEY] == checksums(model.state_dict())
    loaded = OptimizedModel.from_pretrained(tmp_path)
    assert torch.equal(logits_of(loaded, input_ids), logits_of(model, input_ids))
    assert not hasattr(fp32_model, "hf_quantizer")


@pytest.mark.slow
@torch.no_grad()
def test_names_that_transformers_changes_in_its_files_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = SwinConfig(
        image_size=16, patch_size=4, embed_dim=16, depths=[1], num_heads=[2], window_size=2, num_labels=3
    )
    int8, x = quantize(SwinForImageClassification(config).eval()), torch.randn(2, 3, 16, 16)
    for model, folder in ((int8, "first"), (None, "second")):
        model = model or SwinForImageClassification.from_pretrained(tmp_path / "first")
        model.save_pretrained(tmp_path / folder)
        again = SwinForImageClassification.from_pretrained(tmp_path / folder)
        assert torch.equal(again(pixel_values=x).logits, int8(pixel_values=x).logits)


@pytest.mark.slow
def test_a_pooling_with_two_names_is_saved_under_both(tmp_path: Path) -> None:
    config = TextNetConfig(
        stem_num_channels=3,
        stem_out_channels=32,
        conv_layer_kernel_sizes=[[[3, 3]]] * 4,
        conv_layer_strides=[[1], [2], [2], [2]],
        hidden_sizes=[32] * 5,
    )
    model = TextNetForImageClassification(config).eval()
    batch = {"pixel_values": torch.randn(2, 3, 64, 64)}
    int8 = quantize(model, Int8Config(approach="static"), [batch], progress=False)
    loaded = OptimizedModel.from_pretrained(OptimizedModel.save_pretrained(int8, tmp_path / "int8"))
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, int8(**batch).logits)


@pytest.mark.parametrize("path", ["classifier", "bert.embeddings.word_embeddings"])
def test_a_module_with_two_names_is_saved_under_both(path: str, tmp_path: Path) -> None:
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)
    model = BertForSequenceClassification(config).eval()
    model.second = model.get_submodule(path)
    folder = OptimizedModel.save_pretrained(quantize(model, Int8Config(), progress=False), tmp_path / "int8")
    with safe_open(folder / "model.safetensors", "pt") as file:
        for leaf in ("weight", "weight_scale"):
            assert torch.equal(file.get_tensor(f"second.{leaf}"), file.get_tensor(f"{path}.{leaf}"))
