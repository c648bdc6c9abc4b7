"""`inspect` counts every module with weights, and says why what stays FP32 does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from optimum_int8 import Int8Config, inspect, quantize


class Tagger(nn.Module):
    """An embedding, a bidirectional LSTM and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.f = nn.Embedding(100, 32), nn.Linear(128, 5)
        self.r = nn.LSTM(32, 64, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.r(self.e(x))[0])


class Decoder(nn.Module):
    """A transposed convolution between two convolutions, and a 3-D one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.up, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 4, 1)
        self.deep = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.deep(self.b(self.up(self.a(x))).unsqueeze(1))


class Pair(nn.Module):
    """Sums of table rows, a bilinear product, a cell, and a table of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.f = nn.EmbeddingBag(50, 16, max_norm=9.0), nn.Linear(16, 16)
        self.two, self.cell = nn.Bilinear(16, 16, 4), nn.RNNCell(16, 16)
        self.table = nn.Parameter(torch.randn(7, 16))

    def forward(self, x: Tensor) -> Tensor:
        y = self.f(self.bag(x)) + self.table[: len(x)]
        return self.two(y, self.cell(y))


IDS = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(0))


def made(model: nn.Module, data: Any = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    return quantize(nn.Sequential(model).eval(), Int8Config(**settings), data, progress=False)


@torch.no_grad()
@pytest.mark.parametrize("example", [None, IDS])
def test_a_recurrent_layer_in_fp32(example: Tensor | None) -> None:
    report = inspect(made(Tagger(), exclude=("0.r",)), example)
    recurrent = 2 * 4 * 64 * (32 + 64)
    assert report.int8_share == pytest.approx(128 * 5 / (128 * 5 + recurrent))
    assert report.int8_byte_share == pytest.approx(
        (100 * 36 + 128 * 5 + 5 * 8) / (100 * 36 + 128 * 5 + 5 * 8 + (recurrent + 1024) * 4)
    )
    assert report.fp32["0.r"] == "excluded by name"
    assert [part.path for part in report.fp32_parts] == ["0.r"]


@torch.no_grad()
@pytest.mark.parametrize("example", [None, IDS])
def test_a_recurrent_layer_in_int8(example: Tensor | None) -> None:
    report = inspect(made(Tagger()), example)
    recurrent = 2 * 4 * 64 * (32 + 64)
    assert report.int8_share == 1.0 and report.fp32 == {}
    shares = {part.path: part.share for part in report.parts}
    assert shares["0.r"] == pytest.approx(recurrent / (128 * 5 + recurrent))
    sizes = {part.path: part.bytes for part in report.parts}
    assert sizes["0.r"] == recurrent + 2 * 2 * 4 * 64 * (4 + 4)


@torch.no_grad()
def test_transposed_convolutions_count_at_their_inputs() -> None:
    image = torch.randn(1, 3, 8, 8)
    report = inspect(made(Decoder()), image)
    work = {"0.a": 27 * 8 * 64, "0.up": 8 * 8 * 4 * 64, "0.b": 8 * 4 * 256, "0.deep": 2 * 27 * 4 * 256}
    found = {part.path: part.share for part in report.parts}
    assert found == pytest.approx({name: macs / sum(work.values()) for name, macs in work.items()})
    assert "transposed" in report.fp32["0.up"] and "three axes" in report.fp32["0.deep"]


@torch.no_grad()
def test_every_kind_has_its_reason() -> None:
    int8 = made(Pair(), [IDS])
    report = inspect(int8, IDS)
    expected = {"0.bag": "max_norm", "0.two": "bilinear", "0.cell": "without gates", "0.table": "a bare parameter"}
    assert set(report.fp32) == set(expected) == set(int8.int8_metadata["fp32"])
    assert all(text in report.fp32[name] for name, text in expected.items())
    work = {"0.f": 256, "0.two": 4 * 256, "0.cell": 2 * 256}
    assert report.int8_share == pytest.approx(256 / sum(work.values()))
    assert {p.path: p.bytes for p in report.parts}["0.bag"] == 50 * 16 * 4


@torch.no_grad()
def test_excluded_layers_say_so() -> None:
    report = inspect(made(Tagger(), exclude_types=("LSTM",)), IDS)
    assert report.fp32 == {"0.r": "excluded by type LSTM"}
    report = inspect(made(Tagger(), exclude=("0.f",)), IDS)
    assert report.fp32["0.f"] == "excluded by name" and 0.9 < report.int8_share < 1.0


@torch.no_grad()
def test_a_parameter_counts_where_a_product_reads_it() -> None:
    class Tables(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.positions = nn.Linear(16, 16), nn.Parameter(torch.randn(12, 16))
            self.mix = nn.Parameter(torch.randn(16, 16))

        def forward(self, x: Tensor) -> Tensor:
            return (self.f(x) + self.positions) @ self.mix

    report = inspect(made(Tables()), torch.randn(2, 12, 16))
    assert {part.path: part.share for part in report.parts} == {"0.f": 0.5, "0.positions": 0.0, "0.mix": 0.5}


@torch.no_grad()
def test_bytes_are_those_of_the_checkpoint() -> None:
    config = transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    int8 = quantize(model, Int8Config(), progress=False)
    report = inspect(int8, {"input_ids": IDS})
    tensors = {n: t for n, t in int8.state_dict().items() if not n.startswith("lm_head")}  # tied
    assert report.int8_bytes + report.fp32_bytes == sum(t.nbytes for t in tensors.values())


@torch.no_grad()
def test_what_a_page_of_supported_models_says() -> None:
    int8 = made(Tagger(), exclude=("0.r",))
    int8(IDS)
    support = inspect(int8, IDS).support()
    assert support["int8_share"] < 0.02 and support["captured"]
    (why,) = support["fp32"]
    assert why["parts"] == ["0.r"] and why["share"] == pytest.approx(1 - support["int8_share"])
    keys = {"blocks", "single", "fp32", "int8_share", "block_share", "failures"}
    assert keys < set(inspect(int8, IDS).to_dict())
