"""`inspect` says how much memory a model keeps: its weights once, and little beside them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from optimum_int8 import Int8Config, inspect, kernels, quantize
from optimum_int8.passes.resident import resident_memory

IDS = torch.arange(12).view(2, 6)


@pytest.fixture
def model() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
    )
    return quantize(BertModel(config).eval(), Int8Config(approach="dynamic"), progress=False)


def test_blocks_keep_no_second_copy_of_weights(model: BertModel) -> None:
    before = resident_memory(model)
    assert before.blocks == 0
    with torch.inference_mode():
        model(input_ids=IDS)
    after = resident_memory(model)
    weights = sum(m.panels.nbytes for m in model.modules() if hasattr(m, "panels"))
    assert weights > 60_000  # of two layers, so that a copy would be seen
    assert after.model <= before.model + 1024
    if kernels.library() is not None:
        assert after.blocks > 0
    if kernels.current_isa() != "avx2":  # which reads a second form
        assert after.blocks < weights / 4


def test_a_shared_tensor_counts_once() -> None:
    one = nn.Linear(10, 10, bias=False)
    two = nn.Linear(10, 10, bias=False)
    two.weight = one.weight
    assert resident_memory(nn.Sequential(one, two)).model == 400


def test_inspect_tells_it(model: BertModel) -> None:
    with torch.inference_mode():
        model(input_ids=IDS)
    report = inspect(model)
    assert report.to_dict()["memory"] == vars(resident_memory(model))
    assert "in memory" in str(report.table().title)


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_blocks_of_images_have_a_program_for_each_size(approach: str) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.AvgPool2d(2)]
    images = [torch.randn(1, 32, size, size) for size in (8, 12)]
    int8 = quantize(
        nn.Sequential(nn.Sequential(*layers)).eval(), Int8Config(approach=approach), images[:1], progress=False
    )
    before = resident_memory(int8)
    assert before.blocks == 0
    found = []
    with torch.inference_mode():
        for image in images:
            int8(image)
            found.append(resident_memory(int8))
    assert all(memory.model <= before.model + 1024 for memory in found)
    if kernels.library() is not None:
        assert found[0].blocks > 0  # what the batch norm was folded into
    if kernels.current_isa() != "avx2":
        assert found[1].blocks < sum(m.packed.nbytes for m in int8.modules() if hasattr(m, "packed")) / 2
    assert inspect(int8).to_dict()["memory"] == vars(found[1])
