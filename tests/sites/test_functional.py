"""Bare parameters that `F.linear` and convolutions read, as sites of `quantize` and of training: found, saved, loaded, excluded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

import optimum_int8
from optimum_int8 import CalibrationError, Int8Config, QuantizationError, quantize
from optimum_int8.deploy import save as export
from optimum_int8.nn import FunctionalWeight, Int8Conv2d, Int8Linear
from optimum_int8.passes import inspect
from optimum_int8.quantizers import TextClassificationQuantizer
from optimum_int8.training import convert_qat, prepare_qat
from optimum_int8.training.prepare import remove_fake_quantize
from tests.models import reloaded
from tests.quantizers.tiny import make_dataset, make_model, make_tokenizer

STATIC, DYNAMIC, QAT = (Int8Config(approach=a) for a in ("static", "dynamic", "qat"))


class Feed(nn.Module):
    """Two linears on bare parameters, one with a bias."""

    def __init__(self, width: int = 16, inner: int = 24) -> None:
        super().__init__()
        self.wide, self.bias = nn.Parameter(torch.randn(inner, width) / 4), nn.Parameter(torch.randn(inner))
        self.narrow = nn.ParameterList([torch.randn(width, inner) / 5])

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(F.linear(x, self.wide, self.bias)), self.narrow[0])


class Net(nn.Module):
    """A convolution on a bare parameter, `Feed`, torch's own attention, and a linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.filters = nn.Parameter(torch.randn(16, 3, 3, 3) / 3)
        self.feed, self.attention = Feed(), nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.filters, None, 2, padding=1).flatten(2).transpose(1, 2)
        y = self.feed(y)
        return self.head(self.attention(y, y, y, need_weights=False)[0])


EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
PROJECTIONS = {f"attention.{name}": "linear" for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
WEIGHTS = {"feed.wide.linear": "linear", "feed.narrow.0.linear": "linear", "filters.conv2d": "conv"}


def made(model: nn.Module, config: Int8Config = STATIC, data: Any = (EXAMPLE,)) -> Any:
    return quantize(model.eval(), config, data, progress=False)


@torch.no_grad()
@pytest.mark.parametrize("config", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_bare_parameters_are_sites(config: Int8Config) -> None:
    model = Net()
    int8 = made(model, config)
    assert int8.int8_metadata["modules"] == {"attention": "attention", "head": "linear", **PROJECTIONS, **WEIGHTS}
    assert int8.int8_metadata["fp32"] == {}
    assert isinstance(int8.filters.conv2d, Int8Conv2d) and isinstance(int8.feed.wide.linear, Int8Linear)
    assert isinstance(model.filters, nn.Parameter) and isinstance(model.feed.wide, nn.Parameter)
    expected = model(EXAMPLE)
    assert 0 < (int8(EXAMPLE) - expected).square().mean() < 0.01 * expected.square().mean()
    report = inspect(int8, EXAMPLE)
    assert report.int8_share == 1.0
    assert {row.path for row in report.blocks} == {"feed", "attention"}
    assert report.single == {"filters.conv2d": "Int8Conv2d", "head": "Int8Linear"}


@torch.no_grad()
@pytest.mark.parametrize("config", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_it_equals_the_same_model_of_modules(config: Int8Config) -> None:
    torch.manual_seed(0)
    feed, x = Feed(), torch.randn(5, 16)
    modules = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16, bias=False))
    modules[0].weight, modules[0].bias, modules[2].weight = feed.wide, feed.bias, feed.narrow[0]
    functional, plain = (made(nn.Sequential(m), config, [x]) for m in (feed, modules))
    torch.testing.assert_close(
        functional(x), plain(x), rtol=0, atol=2e-5
    )  # as the bias is added apart, ranges can differ


@torch.no_grad()
def test_without_an_example_a_dynamic_model_says_what_was_not_looked_for() -> None:
    int8 = made(Net(), DYNAMIC, None)
    assert set(int8.int8_metadata["fp32"]) == {"filters", "feed.wide", "feed.narrow.0"}
    assert all("calibration_data" in reason for reason in int8.int8_metadata["fp32"].values())
    assert inspect(int8).fp32 == int8.int8_metadata["fp32"]
    with pytest.raises(QuantizationError, match="nothing to quantize.*calibration_data"):
        made(nn.Sequential(Feed()), DYNAMIC, None)


@pytest.mark.slow
@torch.no_grad()
def test_a_generator_of_batches_is_read_once_and_whole() -> None:
    def batches() -> Iterator[Tensor]:
        yield EXAMPLE
        yield EXAMPLE * 4

    once, twice = made(Net(), STATIC, batches()), made(Net(), STATIC, [EXAMPLE, EXAMPLE * 4])
    assert torch.equal(once.filters.conv2d.input_scale, twice.filters.conv2d.input_scale)
    assert torch.equal(once(EXAMPLE), twice(EXAMPLE))
    with pytest.raises(CalibrationError, match="no batch"):
        made(Net(), STATIC, iter(()))


@torch.no_grad()
@pytest.mark.parametrize("exclude", ["feed", "feed.wide", "feed.wide.linear"])
def test_exclude_by_name(exclude: str) -> None:
    int8 = made(Net(), Int8Config(approach="static", exclude=(exclude,)))
    assert int8.int8_metadata["fp32"]["feed.wide.linear"] == "excluded by name"
    assert ("feed.narrow.0.linear" in int8.int8_metadata["modules"]) == (exclude != "feed")
    assert type(int8.feed.wide) is nn.Parameter
    if exclude == "feed":
        x = torch.randn(3, 16)
        assert torch.equal(int8.feed(x), Net().feed(x))
    assert type(made(Net(), Int8Config(exclude=(exclude,)), None).feed.wide) is nn.Parameter
    with pytest.raises(QuantizationError, match=r"names a module.*'head.weight.linear'"):
        made(Net(), Int8Config(approach="static", exclude=("head.weight.linear",)))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("config", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_module_checkpoint_and_file_agree_to_the_bit(config: Int8Config, tmp_path: Path) -> None:
    int8 = made(Net(), config)
    export(int8, tmp_path / "net.pt2", EXAMPLE)
    loaded = optimum_int8.load(tmp_path / "net.pt2")
    again = reloaded(Net(), int8)
    unfused = made(Net(), Int8Config(approach=config.approach, fuse=False))
    for x in (EXAMPLE, EXAMPLE[:1], EXAMPLE.repeat(2, 1, 1, 1)):
        expected = int8(x)
        assert [torch.equal(twin(x), expected) for twin in (again, loaded, copy.deepcopy(int8), unfused)] == [True] * 4


class FeedConfig(PretrainedConfig):
    model_type = "feed-of-a-test"


class FeedModel(PreTrainedModel):
    config_class = FeedConfig

    def __init__(self, config: FeedConfig) -> None:
        super().__init__(config)
        self.feed, self.head = Feed(), nn.Linear(16, 4)
        self.post_init()

    def forward(self, inputs_embeds: Tensor) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.head(self.feed(inputs_embeds)))


@torch.no_grad()
def test_a_transformers_model_loads_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 16)
    int8 = quantize(FeedModel(FeedConfig()).eval(), STATIC, [{"inputs_embeds": x}], progress=False)
    int8.save_pretrained(tmp_path)
    again = FeedModel.from_pretrained(tmp_path)
    assert isinstance(again.feed.wide, FunctionalWeight) and isinstance(again.feed.wide.linear, Int8Linear)
    assert torch.equal(again(x).last_hidden_state, int8(x).last_hidden_state)


@pytest.mark.slow
@pytest.mark.parametrize("config", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_a_task_quantizer_evaluates_it(config: Int8Config) -> None:
    class Intermediate(nn.Module):
        def __init__(self, dense: nn.Linear) -> None:
            super().__init__()
            self.kernel, self.offset = dense.weight, dense.bias

        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(F.linear(x, self.kernel, self.offset))

    model: Any = make_model()
    for layer in model.bert.encoder.layer:
        layer.intermediate = Intermediate(layer.intermediate.dense)
    quantizer, data = TextClassificationQuantizer(model, make_tokenizer()), make_dataset(model)
    int8 = quantizer.quantize(config, calibration_dataset=data)
    modules = int8.config.quantization_config["modules"]
    assert sum(name.endswith("intermediate.kernel.linear") for name in modules) == 2
    report = quantizer.evaluate(data)
    assert report.fp32.value == 1.0 and report.int8.value > 0.8


@pytest.mark.slow
def test_training_learns_them() -> None:
    model = Net()
    static, trained = made(model), prepare_qat(model, QAT, [EXAMPLE], progress=False)
    before = trained.feed.wide.linear.weight.detach().clone()
    with torch.no_grad():
        torch.testing.assert_close(convert_qat(trained)(EXAMPLE), static(EXAMPLE), rtol=0, atol=1e-4)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
    trained.train()(EXAMPLE).square().sum().backward()
    optimizer.step()
    assert not torch.equal(trained.feed.wide.linear.weight, before)
    int8: Any = convert_qat(trained)
    assert isinstance(int8.feed.wide.linear, Int8Linear) and isinstance(int8.filters.conv2d, Int8Conv2d)
    plain: Any = remove_fake_quantize(trained)
    assert set(plain.state_dict()) >= {"filters", "feed.wide", "feed.narrow.0"}


def test_weights_that_other_functions_read_stay_float() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.normed, self.turned, self.head = (
                nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8, 8)), nn.Linear(8, 8),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            y = F.linear(x, self.normed) / self.normed.norm()
            return self.head(F.linear(y, self.turned) @ self.turned.T)

    x = torch.randn(3, 8)
    int8 = made(nn.Sequential(Odd()), STATIC, [x])
    assert list(int8.int8_metadata["modules"]) == ["0.head"]
    reasons = int8.int8_metadata["fp32"]
    assert set(reasons) == {"0.normed.linear", "0.turned.linear"}
    assert all("other functions" in reason for reason in reasons.values())
    assert type(int8[0].normed) is nn.Parameter


def test_a_later_batch_that_reads_a_weight_otherwise_reads_the_float_matrix() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.randn(8, 8)), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.linear(x, self.weight) if len(x) < 5 else torch.matmul(x, self.weight))

    model, data = nn.Sequential(Branch()).eval(), [torch.randn(3, 8), torch.randn(6, 8)]
    int8 = made(model, Int8Config(approach="static", fuse=False), data)
    assert isinstance(int8[0].weight.linear, Int8Linear)
    for x in data:
        assert (int8(x) - model(x)).norm() < 0.03 * model(x).norm()
    assert type(model[0].weight) is nn.Parameter
    assert "0.weight" in made(model, STATIC, [torch.cat(data)]).state_dict()
    excluded = made(model, Int8Config(approach="static", exclude=("0.weight",)), data)
    assert type(excluded[0].weight) is nn.Parameter


@torch.no_grad()
@pytest.mark.parametrize("fuse", [True, False])
def test_a_slot_is_the_matrix_it_stands_for(fuse: bool) -> None:
    class Slots(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.randn(16, 16)), nn.Linear(16, 16)

        def forward(self, x: Tensor, read: bool = False) -> Tensor:
            y = F.linear(x, self.weight)
            if read:
                rows = self.weight[1:3] + self.weight.T[1:3] * self.weight.norm()
                y = y + torch.einsum("oi,bi->bo", self.weight, x) @ self.weight + rows.mean()
            return self.head(y.to(self.weight.dtype))

    model, x = nn.Sequential(Slots()).eval(), torch.randn(6, 16)
    int8 = made(model, Int8Config(fuse=fuse), [x])
    slot = int8[0].weight
    assert isinstance(slot, FunctionalWeight)
    assert (slot.shape, slot.dtype, slot.device) == ((16, 16), torch.float32, torch.device("cpu"))
    assert slot.to(torch.float32) is slot
    assert slot.to(torch.bfloat16).dtype == torch.bfloat16
    for read in (False, True):
        expected = model[0](x, read)
        assert (int8[0](x, read) - expected).norm() < 0.03 * expected.norm()
