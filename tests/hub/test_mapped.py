"""Pages of a mapped checkpoint: those of packed weights are given back, the others stay what they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from optimum_int8 import Int8Config, OptimizedModel, quantize

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is in memory")

ROWS, WIDTH = 2048, 256
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": (
        "BertModel",
        {"vocab_size": ROWS, "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 1024},
    ),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": ROWS, "n_embd": WIDTH, "n_layer": 3, "n_head": 4}),
    "t5": ("T5ForConditionalGeneration", {"vocab_size": ROWS, "d_model": WIDTH, "d_ff": 1024, "num_layers": 2}),
}  # fmt: skip


def make(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """An INT8 model whose weights are several times as large as its table, and inputs."""
    class_name, settings = MODELS[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **settings)
    model = quantize(
        getattr(transformers, class_name)(config).eval(), Int8Config(approach="dynamic", fuse=False), progress=False
    )
    inputs = {"input_ids": torch.arange(10, 26)[None]}
    if name == "t5":
        inputs["decoder_input_ids"] = inputs["input_ids"]
    return model, inputs


def resident_bytes(file: Path) -> int:
    """Memory of this process that mappings of a file take."""
    total = 0
    found = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        head = line.split()[0]
        if not head.endswith(":"):
            found = line.endswith(str(file.resolve()))
        elif found and head == "Rss:":
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.parametrize("name", MODELS)
def test_packed_weights_leave_no_pages(name: str, tmp_path: Path) -> None:
    model, inputs = make(name)
    OptimizedModel.save_pretrained(model, tmp_path)
    file = tmp_path / "model.safetensors"
    loaded = OptimizedModel.from_pretrained(tmp_path)
    assert resident_bytes(file) < ROWS * WIDTH + file.stat().st_size // 10
    with torch.no_grad():
        assert torch.equal(loaded(**inputs)[0], model(**inputs)[0])
    found = loaded.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in model.state_dict().items())


def test_another_mapping_of_the_file_keeps_what_was_written_to_it(tmp_path: Path) -> None:
    model, _ = make("bert")
    OptimizedModel.save_pretrained(model, tmp_path)
    others = load_file(tmp_path / "model.safetensors")
    for tensor in others.values():
        tensor.fill_(3)
    OptimizedModel.from_pretrained(tmp_path)
    assert all(bool((tensor == 3).all()) for tensor in others.values())


def test_a_model_keeps_what_was_written_to_its_own_tensors(tmp_path: Path) -> None:
    model, inputs = make("bert")
    OptimizedModel.save_pretrained(model, tmp_path)
    first = OptimizedModel.from_pretrained(tmp_path)
    with torch.no_grad():
        for module in (model, first):
            module.embeddings.LayerNorm.weight.mul_(2)
            module.embeddings.word_embeddings.int8_weight.neg_()
        OptimizedModel.from_pretrained(tmp_path)
        assert torch.equal(first(**inputs)[0], model(**inputs)[0])
