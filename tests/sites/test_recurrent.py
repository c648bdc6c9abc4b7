"""Recurrent layers as sites: calls with packed sequences, what comparing them sees, and training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from optimum_int8 import Int8Config, quantize
from optimum_int8.nn.recurrent import recurrent_from_float
from optimum_int8.sites import KINDS, RECURRENT, collect_sites

KIND = KINDS[RECURRENT]


class Chain(nn.Module):
    """An LSTM whose last states a second one begins with, and a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(8, 12), nn.LSTM(12, 12)
        self.cell = nn.LSTMCell(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        y, last = self.first(x)
        y, (h, c) = self.second(y, last)
        return self.cell(input=y[-1], hx=(h[0], c[0]))[0]


@torch.no_grad()
@pytest.mark.parametrize("name", ["first", "second", "cell"])
def test_a_call_that_is_replaced_brings_its_states(name: str) -> None:
    torch.manual_seed(0)
    model, x = Chain().eval(), torch.randn(5, 2, 8)
    module = model.get_submodule(name)
    int8 = recurrent_from_float(module)
    seen: dict[str, Any] = {}

    def visit(site: str, inputs: tuple[Any, ...], output: Tensor, ours: Any, exact: Any) -> Tensor:
        rows = KIND.rows(module, inputs)["input"]
        seen[site] = torch.equal(exact(), output), KIND.multiply_adds(module, inputs, output), rows.shape
        return ours()

    exact = model(x)
    with KIND.visited(model, {name: int8}, visit):
        replaced = model(x)
    assert torch.equal(model(x), exact) and not torch.equal(replaced, exact)
    equal, products, shape = seen[name]
    inputs = 8 if name == "first" else 12
    length = () if name == "cell" else (5,)
    assert equal and shape == (*length, 2, inputs)
    assert products == (1 if name == "cell" else 5) * 2 * 4 * 12 * (inputs + 12)
    setattr(model, name, int8)
    assert torch.equal(model(x), replaced)


@torch.no_grad()
def test_a_range_of_packed_sequences_leaves_padding_out() -> None:
    class Packing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.GRU(4, 6, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.layers(packed)[1]

    x = torch.randn(2, 5, 4).clamp(-2, 2)
    x[0, 3:] = 1000.0
    int8 = quantize(Packing().eval(), Int8Config(approach="static"), [(x, torch.tensor([3, 5]))], progress=False)
    assert 0 < float(int8.layers.input_scale) < 4.1 / 255


def test_training_leaves_them_float_and_says_so() -> None:
    sites = collect_sites(
        nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 4), nn.EmbeddingBag(4, 4)), Int8Config(approach="qat")
    )
    assert set(sites.int8) == {"0"}
    assert "stay FP32 in training" in sites.fp32["1"] and "stay FP32 in training" in sites.fp32["2"]


def test_plain_recurrent_layers_say_why() -> None:
    int8 = quantize(nn.Sequential(nn.Linear(4, 4), nn.RNN(4, 4)))
    assert "without gates" in int8.int8_metadata["fp32"]["1"]
