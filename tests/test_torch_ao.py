"""`optimum_int8.torch_ao.quantize_dynamic` takes what torch.ao's takes, and docs/from-torch-ao.md says what is so."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8.errors import ConfigError, QuantizationError
from optimum_int8.torch_ao import quantize_dynamic


class Everything(nn.Module):
    """Each kind of module that torch.ao takes, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.table = nn.EmbeddingBag(30, 16), nn.Embedding(30, 16)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.lstm, self.gru = nn.LSTM(16, 16, batch_first=True), nn.GRU(16, 16, batch_first=True)
        self.lstm_cell, self.gru_cell, self.rnn_cell = nn.LSTMCell(16, 16), nn.GRUCell(16, 16), nn.RNNCell(16, 16)
        self.part = nn.ModuleDict({"one": nn.Linear(16, 16), "other": nn.Linear(16, 16)})
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.conv(self.table(ids).mT).mT
        x = self.gru(self.lstm(x)[0])[0][:, -1] + self.bag(ids)
        x = self.rnn_cell(self.gru_cell(self.lstm_cell(x)[0]))
        return self.head(self.part["one"](x) + self.part["other"](x))


IDS = torch.randint(0, 30, (3, 7), generator=torch.Generator().manual_seed(0))
CHOICES: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"lstm", "gru", "lstm_cell", "gru_cell", "part.one", "part.other", "head"}),
    ({"qconfig_spec": {nn.LSTM, nn.GRUCell}}, {"lstm", "gru_cell"}),
    ({"qconfig_spec": {"part", "gru"}}, {"part.one", "part.other", "gru"}),
    (
        {"qconfig_spec": {nn.Linear: object(), "lstm": object(), "gru": None}},
        {"lstm", "part.one", "part.other", "head"},
    ),
    ({"qconfig_spec": [nn.Conv1d]}, {"conv"}),
    ({"dtype": torch.quint8}, {"bag", "table"}),
]


def made() -> Everything:
    torch.manual_seed(0)
    return Everything().eval()


@torch.no_grad()
@pytest.mark.parametrize(("arguments", "expected"), CHOICES)
def test_what_is_quantized(arguments: dict[str, Any], expected: set[str]) -> None:
    model = made()
    int8 = quantize_dynamic(model, **arguments)
    found = {name for name, module in int8.named_modules() if type(module).__name__.startswith("Int8")}
    assert found == expected
    assert float((int8(IDS) - model(IDS)).norm() / model(IDS).norm()) < 0.1
    assert not any(type(module).__name__.startswith("Int8") for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("spec", [None, {nn.Linear}, {nn.LSTM, nn.GRU}, {"part"}])
def test_torch_takes_the_same_arguments_and_chooses_the_same(spec: Any) -> None:
    ao = pytest.importorskip("torch.ao.quantization")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ao.quantize_dynamic(made(), copy.copy(spec), dtype=torch.qint8)
    ours = quantize_dynamic(made(), copy.copy(spec), dtype=torch.qint8)
    changed = {name for name, module in theirs.named_modules() if type(module).__module__.startswith("torch.ao.")}
    names = dict(made().named_modules())
    expected = {name for name in changed if name in names} - {"rnn_cell"}
    assert {name for name, module in ours.named_modules() if type(module).__name__.startswith("Int8")} == expected
    exact = made()(IDS)
    assert (ours(IDS) - exact).norm() < (theirs(IDS) - exact).norm()


def test_in_place() -> None:
    model = made()
    assert quantize_dynamic(model, inplace=True) is model
    assert type(model.lstm).__name__ == "Int8LSTM"


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="float16"):
        quantize_dynamic(made(), dtype=torch.float16)
    with pytest.raises(ConfigError, match="mapping"):
        quantize_dynamic(made(), mapping={})  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match="RNNCell"):
        quantize_dynamic(made(), {nn.RNNCell})
    with pytest.raises(QuantizationError, match="Sequential"):
        quantize_dynamic(nn.LSTM(4, 4))
