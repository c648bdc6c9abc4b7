"""The work flow of the recipe: calibrate, save, read, convert; and whose calls count."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import CalibrationError, ConfigError, Int8Config, QuantConf, calibrate, convert, quantize
from optimum_int8.nn import Int8Linear
from tests.models import batch, classifier, int8_classifier, logits

KEYS = [
    "id", "name", "algorithm", "weight_granularity", "input_scales", "input_zero_points", "output_scales", "output_zero_points",
    "weight_scales", "input_quantized_dtypes", "output_quantized_dtypes", "inputs_quantized", "outputs_quantized", "inputs_flow",
    "outputs_flow",
]  # fmt: skip


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


def data(count: int = 3, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 16, generator=generator) for _ in range(count)]


def calibrated(model: nn.Module, inputs: list[Any], **settings: Any) -> QuantConf:
    conf = QuantConf(**settings)
    with torch.no_grad():
        for x in inputs:
            with calibrate(conf):
                model(**x) if isinstance(x, dict) else model(x)
    return conf


@torch.no_grad()
def test_equals_quantize_to_the_bit(tmp_path: Path) -> None:
    model, inputs = mlp(), data()
    conf = calibrated(model, inputs)
    conf.save(tmp_path / "configure.json")
    int8 = convert(model, QuantConf(tmp_path / "configure.json"), inputs[0])
    direct = quantize(model, Int8Config(approach="static"), inputs, progress=False)
    assert type(int8) is nn.Sequential and isinstance(int8[0], Int8Linear)
    assert torch.equal(int8(inputs[0]), direct(inputs[0]))
    assert type(model[0]) is nn.Linear


@pytest.mark.slow
def test_a_transformers_model_equals_quantize_to_the_bit(tmp_path: Path) -> None:
    model = classifier()
    conf = calibrated(model, [batch(), batch(4, 17, 0, 2)])
    conf.save(tmp_path / "configure.json")
    int8 = convert(model, QuantConf(tmp_path / "configure.json"), batch())
    direct = int8_classifier(model=model)
    found, expected = int8.state_dict(), direct.state_dict()
    assert found.keys() == expected.keys()
    assert [k for k in found if not torch.equal(found[k], expected[k])] == []
    assert type(int8) is type(model)
    assert torch.equal(logits(int8, **batch()), logits(direct, **batch()))


def test_the_file(tmp_path: Path) -> None:
    conf = calibrated(mlp(), data())
    conf.save(tmp_path / "configure.json")
    ops = json.loads((tmp_path / "configure.json").read_text())
    assert [(op["id"], op["name"], op["module"]) for op in ops] == [(0, "linear", "0"), (1, "linear", "2")]
    assert all(list(op)[: len(KEYS)] == KEYS for op in ops)
    assert ops[0]["inputs_flow"] == ["linear0.input0"] and ops[0]["outputs_flow"] == ["linear0.output0"]
    assert len(ops[0]["weight_scales"][0]) == 32
    assert ops[0]["input_quantized_dtypes"] == ["uint8"] and 0 < ops[0]["input_zero_points"][0] < 255
    assert QuantConf(tmp_path / "configure.json").ops == conf.ops


def test_flow_names_the_producer() -> None:
    conf = calibrated(nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 4)).eval(), data())
    assert conf.ops[1].inputs_flow == conf.ops[0].outputs_flow


@torch.no_grad()
def test_symmetric() -> None:
    model, inputs = mlp(), data()
    conf = calibrated(model, inputs, qscheme=torch.per_tensor_symmetric)
    assert [op.input_quantized_dtypes for op in conf.ops] == [["int8"], ["int8"]]
    assert [op.input_zero_points for op in conf.ops] == [[0], [0]]
    int8 = convert(model, conf, inputs[0])
    assert int8[0].input_zero_point == 128
    largest = max(float(x.abs().max()) for x in inputs)
    assert float(int8[0].input_scale) == pytest.approx(largest / 127, rel=1e-6)
    assert (int8(inputs[0]) - model(inputs[0])).abs().max() < 0.05


@torch.no_grad()
def test_a_model_that_is_one_module() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(16, 4).eval(), data()[0]
    int8 = convert(model, calibrated(model, [x]), x)
    assert isinstance(int8, Int8Linear)
    assert (int8(x) - model(x)).abs().max() < 0.05


def test_two_models_nested_blocks_and_errors_inside() -> None:
    first, second, x = mlp(0), mlp(5), data()[0]
    a, b = QuantConf(), QuantConf()
    with torch.no_grad(), calibrate(a):
        first(x)
        with calibrate(b), calibrate(b), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            second(x)
            second(x[:, :3])
    alone = calibrated(second, [x])
    assert [op.to_dict() for op in b.ops] == [op.to_dict() for op in alone.ops]
    second(x)  # no block is left open
    assert [op.to_dict() for op in b.ops] == [op.to_dict() for op in alone.ops]


def test_nested_blocks_of_two_models_in_one_recipe_are_refused() -> None:
    conf = QuantConf()
    with calibrate(conf):
        mlp(0)(data()[0])
        with pytest.raises(CalibrationError, match="another model"):
            mlp(1)(data()[0])


def test_threads_do_not_hear_each_other() -> None:
    models, inputs = [mlp(i) for i in range(4)], data()
    confs: list[QuantConf | None] = [None] * 4
    barrier = threading.Barrier(4)

    def work(i: int) -> None:
        conf = QuantConf()
        for x in inputs:
            with torch.no_grad(), calibrate(conf):
                barrier.wait()
                models[i](x)
                barrier.wait()
        confs[i] = conf

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model, conf in zip(models, confs, strict=True):
        assert conf is not None
        assert [op.to_dict() for op in conf.ops] == [op.to_dict() for op in calibrated(model, inputs).ops]


def test_calls_inside_a_module_that_calibrates_count_from_there() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.conf = mlp(), QuantConf()

        def forward(self, x: Tensor) -> Tensor:
            with calibrate(self.conf):
                return self.inner(x)

    outer = Outer()
    outer(data()[0])
    assert [op.module for op in outer.conf.ops] == ["0", "2"]


def test_a_method_of_the_model_names_modules_from_the_model() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def encode(self, x: Tensor) -> Tensor:
            return self.net(x)

    conf = QuantConf()
    with calibrate(conf):
        Encoder().encode(data()[0])
    assert [op.module for op in conf.ops] == ["net.0", "net.2"]


def test_empty_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="empty"):
        QuantConf().save(tmp_path / "x.json")
    with pytest.raises(CalibrationError, match="empty"):
        convert(mlp(), QuantConf(), data()[0])
    with pytest.raises(ConfigError, match="qscheme"):
        QuantConf(qscheme=torch.per_channel_affine)
    with pytest.raises(CalibrationError, match="NaN"):
        calibrated(mlp(), [torch.full((2, 16), float("nan"))])


@torch.no_grad()
def test_calibrating_with_a_file_keeps_its_settings_and_renews_its_scales(tmp_path: Path) -> None:
    model, inputs = mlp(), data()
    conf = calibrated(model, [x / 10 for x in inputs])
    conf.ops[0].algorithm, conf.ops[1].inputs_quantized = "kl", [False]
    conf.save(tmp_path / "configure.json")
    again = QuantConf(tmp_path / "configure.json")
    with calibrate(again):
        for x in inputs:
            model(x)
    assert again.ops[0].algorithm == "kl" and again.ops[1].inputs_quantized == [False]
    assert again.ops[0].input_scales[0] > 5 * conf.ops[0].input_scales[0]
