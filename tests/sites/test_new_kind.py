"""A new kind of site is one file: registered here, it is matched, calibrated, converted, saved, loaded and run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from optimum_int8 import Int8Config, inspect, numerics, quantize
from optimum_int8.nn import FakeQuantize, Int8Linear, Int8Module
from optimum_int8.quantization import prepare_copy
from optimum_int8.sites import (
    KINDS,
    FakeQuantization,
    Quantization,
    SiteKind,
    Storage,
    find_sites,
    register,
)
from optimum_int8.sites.install import set_qparams
from optimum_int8.training import convert_qat, prepare_qat
from optimum_int8.tuning import measure_sensitivity

WIDTH = 16


class Gain(nn.Module):
    """Each channel times a number of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Int8Gain(Int8Module):
    """`Gain` on an input that is rounded to uint8."""

    weight: Tensor
    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(width))
        self._qparam_buffers(("input_scale", "input_zero_point"), True)

    @property
    def products_per_row(self) -> int:
        return len(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        qparams = self.input_scale, self.input_zero_point
        rounded = torch.ops.optimum_int8.dequantize(torch.ops.optimum_int8.quantize(x, *qparams), *qparams)
        return rounded * self.weight


class FakeGain(Gain):
    input_fake_quantize: FakeQuantize

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.input_fake_quantize(x))


class GainKind(SiteKind[Gain]):
    name = "toy_gain"
    float_in_training = ""

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        return isinstance(module, Gain)

    def obstacle(self, name: str, module: nn.Module, config: Int8Config) -> str:
        return "a gain needs a range" if config.approach == "dynamic" else ""

    def from_float(self, module: nn.Module, how: Quantization) -> Int8Gain:
        new = Int8Gain(len(module.weight))  # type: ignore[arg-type]
        new.weight = module.weight.detach().clone()  # type: ignore[operator]
        assert how.input_range is not None
        set_qparams(new, {"input": numerics.choose_affine_qparams(*how.input_range)})
        return new

    def empty(self, module: nn.Module, how: Storage) -> Int8Gain | None:
        return Int8Gain(len(module.weight)) if isinstance(module, Gain) else None

    def fake(self, module: nn.Module, how: FakeQuantization) -> None:
        module.__class__ = FakeGain
        module.input_fake_quantize = how.of_input()

    def fake_quantizers(self, module: nn.Module) -> dict[str, FakeQuantize]:
        return {"input": module.input_fake_quantize}  # type: ignore[dict-item]

    def unfake(self, module: nn.Module) -> None:
        del module.input_fake_quantize
        module.__class__ = Gain

    def multiply_adds(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> int:
        return output.numel()


class ToyConfig(PretrainedConfig):
    model_type = "toy_gain_model"


class ToyModel(PreTrainedModel):
    config_class = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.linear, self.gain = nn.Linear(WIDTH, WIDTH), Gain(WIDTH)
        self.post_init()

    def forward(self, x: Tensor) -> Tensor:
        return self.gain(self.linear(x))


@pytest.fixture(autouse=True, scope="module")
def toy() -> Iterator[None]:
    register(GainKind())
    yield
    KINDS.pop(GainKind.name)


X = torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(0))


def model() -> ToyModel:
    torch.manual_seed(1)
    return ToyModel(ToyConfig()).eval()


def test_it_is_matched_and_may_refuse() -> None:
    assert find_sites(model(), Int8Config(approach="static")).int8 == {"linear": "linear", "gain": "toy_gain"}
    assert find_sites(model(), Int8Config()).fp32 == {"gain": "a gain needs a range"}
    excluded = find_sites(model(), Int8Config(approach="static", exclude=("gain",)))
    assert excluded.fp32 == {"gain": "excluded by name"}


def test_it_is_calibrated_converted_and_run() -> None:
    float_model = model()
    int8 = quantize(float_model, Int8Config(approach="static"), [(X,)], progress=False)
    assert isinstance(int8.gain, Int8Gain)
    with torch.no_grad():
        rows = float_model.linear(X)
        expected = numerics.choose_affine_qparams(float(rows.min()), float(rows.max()))
        assert (float(int8.gain.input_scale), int(int8.gain.input_zero_point)) == expected
        assert torch.equal(int8(X), int8.gain(int8.linear(X)))
        assert 0 < float((int8(X) - float_model(X)).abs().max()) < 3 * expected[0]


def test_a_site_that_no_data_reaches_stays_float() -> None:
    class Idle(ToyModel):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    int8 = quantize(Idle(ToyConfig()).eval(), Int8Config(approach="static"), [(X,)], progress=False)
    assert type(int8.gain) is Gain
    assert int8.config.quantization_config["fp32"] == {"gain": "never reached by the calibration data"}


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    int8 = quantize(model(), Int8Config(approach="static"), [(X,)], progress=False)
    int8.save_pretrained(tmp_path)
    again = ToyModel.from_pretrained(tmp_path)
    assert isinstance(again.gain, Int8Gain) and isinstance(again.linear, Int8Linear)
    with torch.no_grad():
        assert torch.equal(again(X), int8(X))


def test_it_is_trained() -> None:
    prepared = prepare_qat(model(), Int8Config(approach="qat"), [(X,)], progress=False)
    assert type(prepared.gain) is FakeGain
    prepared.train()(X).sum().backward()
    assert prepared.gain.weight.grad is not None
    int8 = convert_qat(prepared.eval())
    assert isinstance(int8.gain, Int8Gain)
    with torch.no_grad():
        assert torch.allclose(int8(X), prepared(X), atol=1e-5)


def test_its_error_is_measured() -> None:
    prepared = prepare_copy(model(), Int8Config(approach="static"), [(X,)], progress=False)
    rows = {row.name: row for row in measure_sensitivity(prepared, [(X,)], progress=False)}
    assert rows["gain"].kind == "toy_gain" and 0 < rows["gain"].site_error < 0.1
    assert rows["gain"].macs == pytest.approx(1 / (WIDTH + 1))


def test_it_is_reported() -> None:
    int8 = quantize(model(), Int8Config(approach="static"), [(X,)], progress=False)
    report = inspect(int8, (X,))
    assert report.int8_share == 1.0 and not report.fp32
    shares = {part.path: part.share for part in report.parts}
    assert shares["gain"] == pytest.approx(1 / (WIDTH + 1))


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="toy_gain"):
        register(GainKind())
