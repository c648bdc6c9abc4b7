"""Multiplying an INT8 weight by a power of two in place, as RWKV does, is exact in its scales."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.errors import QuantizationError
from optimum_int8.nn import Int8Conv, Int8Embedding, Int8Linear
from optimum_int8.nn.dequantized import DequantizedWeight

IDS = torch.arange(2, 16).view(2, 7)


def rwkv() -> transformers.RwkvForCausalLM:
    torch.manual_seed(0)
    config = transformers.RwkvConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=3, attention_hidden_size=32, rescale_every=1
    )
    return transformers.RwkvForCausalLM(config).eval()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("module", [nn.Linear(8, 6), nn.Conv2d(3, 4, 3), transformers.pytorch_utils.Conv1D(6, 8)])
@pytest.mark.parametrize(
    ("write", "factor"),
    [(lambda w: w.mul_(4), 4.0), (lambda w: w.div_(8), 0.125), (lambda w: w.div_(torch.tensor(2.0)), 0.5)],
)
def test_powers_of_two(module: nn.Module, write: Callable[[Tensor], Any], factor: float) -> None:
    int8 = (Int8Conv if isinstance(module, nn.Conv2d) else Int8Linear).from_float(module)
    before, stored = int8.weight.dense(), int8.quantized_weight().clone()
    weight = int8.weight
    with torch.no_grad():
        write(weight)
    assert torch.equal(int8.weight.dense(), before * factor)
    assert torch.equal(weight.dense(), before * factor)
    assert torch.equal(int8.quantized_weight(), stored)
    assert type(int8.weight) is DequantizedWeight


@pytest.mark.parametrize("factor", [3, 0.1, -2, 0, float("inf"), 2.0**200, torch.ones(6, 1)])
def test_other_factors_are_our_error(factor: Any) -> None:
    int8 = Int8Linear.from_float(nn.Linear(8, 6))
    before = int8.weight_scale.clone()
    with pytest.raises(QuantizationError, match="would write to the weight"):
        int8.weight.mul_(factor)
    assert torch.equal(int8.weight_scale, before)


def test_tied_weights_are_our_error() -> None:
    table = Int8Embedding.from_float(nn.Embedding(6, 8))
    head = Int8Linear.from_float(nn.Linear(8, 6))
    head.tie(table)
    for module in (table, head):
        with pytest.raises(QuantizationError, match="would write to the weight"):
            module.weight.mul_(2)


@pytest.mark.parametrize("fuse", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("approach", ["dynamic", pytest.param("static", marks=pytest.mark.slow)])
def test_rwkv_runs_and_reloads_to_the_bit(fuse: bool, approach: str, tmp_path: Path) -> None:
    model = rwkv()
    expected = logits(model)
    data = [{"input_ids": IDS}] if approach == "static" else None
    int8 = quantize(rwkv(), Int8Config(approach=approach, fuse=fuse), data, progress=False)
    found = logits(int8)
    assert (found - expected).norm() < 0.03 * expected.norm()
    OptimizedModel.save_pretrained(int8, tmp_path)
    assert torch.equal(logits(int8), found)
    again = OptimizedModel.from_pretrained(tmp_path)
    assert torch.equal(logits(again), found)
    assert torch.equal(logits(again), found)
    again.train()
    logits(again)
    assert torch.equal(logits(again.eval()), found)
