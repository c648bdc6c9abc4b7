"""The GGUF file of a model: names, order of rotated pairs, and values read back by the reader of the `gguf` package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.generation import gguf_file
from benchmarks.generation.models import make
from benchmarks.turns import EngineFailed


def test_pairs_side_by_side_rotate_as_halves_do() -> None:
    """Scores of rotated queries and keys are the same in both orders."""
    torch.manual_seed(0)
    heads, size = 3, 8
    angles = torch.rand(size // 2)
    queries, keys = torch.randn(heads * size, 5), torch.randn(heads * size, 5)

    def rotate_halves(weight: torch.Tensor) -> torch.Tensor:
        first, second = weight.view(heads, 2, size // 2, 5).unbind(1)
        return torch.stack([first * cos - second * sin, second * cos + first * sin], 1).reshape(heads, size, 5)

    def rotate_pairs(weight: torch.Tensor) -> torch.Tensor:
        first, second = weight.view(heads, size // 2, 2, 5).unbind(2)
        return torch.stack([first * cos - second * sin, second * cos + first * sin], 2).reshape(heads, size, 5)

    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    as_halves = torch.einsum("hsi,hsj->hij", rotate_halves(queries), keys.view(heads, size, 5))
    paired = [gguf_file.interleave_halves(weight, heads) for weight in (queries, keys)]
    as_pairs = torch.einsum("hsi,hsj->hij", rotate_pairs(paired[0]), paired[1].view(heads, size, 5))
    torch.testing.assert_close(as_pairs, as_halves)
    assert not torch.equal(paired[0], queries)


def test_names_are_those_of_gguf_and_every_tensor_has_one() -> None:
    for name, extra in (("tiny-llama", 0), ("tiny", 1)):
        model = make(name)
        tensors = dict(gguf_file.rename_tensors(model))
        assert len(tensors) == len(list(model.named_parameters())) + extra
        assert {"token_embd.weight", "output_norm.weight", "blk.0.ffn_up.weight"} <= set(tensors)
        assert ("output.weight" in tensors) == bool(extra)
        sizes = (model.config.hidden_size, model.config.vocab_size)
        assert tensors["token_embd.weight"].shape == sizes[::-1]
    assert tensors["blk.0.attn_qkv.weight"].shape == (3 * 64, 64)  # Conv1D has it the other way round


@pytest.mark.parametrize(("name", "kind"), [("tiny-llama", "llama"), ("tiny", "gpt2")])
def test_values_are_read_back(name: str, kind: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="pip install gguf")
    model = make(name)
    reader = gguf.GGUFReader(gguf_file.write_gguf(model, tmp_path / "deep" / "model.gguf"))
    assert reader.get_field("general.architecture").contents() == kind
    assert reader.get_field(f"{kind}.block_count").contents() == model.config.num_hidden_layers
    assert len(reader.get_field("tokenizer.ggml.tokens").contents()) == model.config.vocab_size
    expected = dict(gguf_file.rename_tensors(model))
    assert {tensor.name for tensor in reader.tensors} == set(expected)
    for tensor in reader.tensors:
        wanted = expected[tensor.name].detach()
        found = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()).view(wanted.shape)
        is_matrix = wanted.ndim == 2 and tensor.name != "position_embd.weight"
        assert tensor.tensor_type.name == ("Q8_0" if is_matrix else "F32")
        largest = float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=0, atol=largest / 127 if is_matrix else 0)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    class Config:
        model_type = "t5"
        tie_word_embeddings = True

    model: Any = type("Model", (), {"config": Config()})()
    with pytest.raises(EngineFailed, match="no GGUF writer for t5; expected one of llama, qwen3, gpt2"):
        gguf_file.write_gguf(model, tmp_path / "model.gguf")
    model = make("tiny-llama")
    model.config.tie_word_embeddings = False
    with pytest.raises(EngineFailed, match="a head of its own"):
        gguf_file.write_gguf(model, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())
