"""A recipe edited by hand: what changes in the model, and which edits are refused, with their line. Files of the archived project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import ConfigError, QuantConf, calibrate, convert
from optimum_int8.nn import Int8Add, Int8AvgPool2d, Int8Conv2d, Int8Linear
from optimum_int8.numerics import choose_symmetric_scale

EXAMPLE = torch.randn(2, 10, 8, 8, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """A convolution, and two linears whose order in execution is not that of their definition."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.body, self.conv = nn.Linear(16, 4), nn.Linear(10, 16), nn.Conv2d(10, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(self.conv(x).mean((2, 3)))))


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """A saved recipe of `Net` with values set: `edited(0, algorithm="kl")`."""
    conf = QuantConf()
    with torch.no_grad(), calibrate(conf):
        Net().eval()(torch.cat([EXAMPLE, EXAMPLE * 3]))
    path = tmp_path / "configure.json"
    conf.save(path)

    def edit(place: int, **values: Any) -> Path:
        ops = json.loads(path.read_text())
        ops[place].update(values)
        path.write_text(json.dumps(ops, indent=4))
        return path

    return edit


def converted(path: Path) -> Any:
    return convert(Net().eval(), QuantConf(path), EXAMPLE)


def test_inputs_quantized_false_leaves_an_op_in_fp32(edited: Callable[..., Path]) -> None:
    model = converted(edited(0, inputs_quantized=[False]))
    assert type(model.conv) is nn.Conv2d
    assert isinstance(model.body, Int8Linear) and isinstance(model.head, Int8Linear)


def test_dtype(edited: Callable[..., Path]) -> None:
    plain, model = converted(edited(0)), converted(edited(0, input_quantized_dtypes=["int8"]))
    assert isinstance(model.conv, Int8Conv2d) and int(model.conv.input_zero_point) == 128
    assert int(plain.conv.input_zero_point) != 128
    assert float(model.conv.input_scale) == choose_symmetric_scale(float((EXAMPLE * 3).abs().max()))


def test_granularity(edited: Callable[..., Path]) -> None:
    model = converted(edited(1, weight_granularity="per_tensor"))
    assert model.body.weight_scale.unique().numel() == 1
    assert model.head.weight_scale.unique().numel() == 4


@pytest.mark.parametrize("algorithm", ["kl", "mse", "percentile", "moving_averager_min_max"])
def test_algorithm(edited: Callable[..., Path], algorithm: str) -> None:
    path = edited(1, algorithm=algorithm)
    op = QuantConf(path).ops[1]
    low, high = op.input_ranges[algorithm][0]
    assert op.input_scales[0] == pytest.approx((high - low) / 255)
    assert float(converted(path).body.input_scale) == pytest.approx(op.input_scales[0])


def test_scales_set_by_hand(edited: Callable[..., Path]) -> None:
    model = converted(edited(1, input_scales=[0.5], input_zero_points=[7], weight_scales=[[0.25] * 16]))
    assert (float(model.body.input_scale), int(model.body.input_zero_point)) == (0.5, 7)
    assert model.body.weight_scale.tolist() == [0.25] * 16
    assert torch.equal(model.body.quantized_weight().squeeze(-1), torch.round(Net().body.weight * 4).to(torch.int8))


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({"algorithm": "kld"}, "algorithm", "one of min_max"),
        ({"weight_granularity": "per_row"}, "weight_granularity", "per_channel, per_tensor"),
        ({"input_quantized_dtypes": ["int4"]}, "input_quantized_dtypes", "uint8 and int8"),
        ({"inputs_quantized": "false"}, "inputs_quantized", "true and false"),
        ({"inputs_quantized": [True, True]}, "input_quantized_dtypes", "2 values"),
        ({"input_scales": [0.0]}, "input_scales", "above 0"),
        ({"input_zero_points": [256]}, "input_zero_points", "0 to 255"),
        ({"outputs_quantized": [True]}, "outputs_quantized", "the op that reads it"),
        ({"weight_scales": [[0.1, 0.2]]}, "weight_scales", "1 or 16"),
        ({"module": "bodi"}, "module", "qualified name"),
        ({"name": "conv2d"}, "name", "'linear'"),
        ({"module": "conv"}, "module", "each module once"),
        ({"granularity": "per_tensor"}, "granularity", "unknown key"),
    ],
)
def test_impossible_edits_name_the_line(
    edited: Callable[..., Path], values: dict[str, Any], key: str, expected: str
) -> None:
    path = edited(1, **values)
    second = path.read_text().index('"id": 1')
    line = path.read_text().count("\n", 0, path.read_text().index(f'"{key}"', second if key != "id" else 0)) + 1
    with pytest.raises(ConfigError) as caught:
        converted(path)
    assert f"configure.json, line {line}:" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("{}", 1),
        ("[\n{}]", 2),
        ('[\n\n{"id": 0, "name": }]', 3),
        ("[1]", 1),
        ('[{"id": 0,\n"name": NaN}]', 1),
    ],
)
def test_text_that_is_no_recipe(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=f"x.json, line {line}:"):
        QuantConf(tmp_path / "x.json")


def legacy(**changes: Any) -> dict[str, Any]:
    """An op as Intel Extension for PyTorch 1.x wrote it."""
    return {
        "id": 0, "name": "conv2d", "algorithm": "min_max", "weight_granularity": "per_channel",
        "input_scales": [0.02742583677172661], "input_zero_points": [125],
        "output_scales": [0.01582648977637291], "output_zero_points": [120], "weight_scales": [[0.0008] * 10],
        "input_quantized_dtypes": ["uint8"], "output_quantized_dtypes": ["uint8"],
        "inputs_quantized": [True], "outputs_quantized": [False],
        "inputs_flow": ["conv2d.0.input"], "outputs_flow": ["conv2d.0.output"],
        **changes,
    }  # fmt: skip


def test_a_file_of_the_archived_project(tmp_path: Path) -> None:
    path = tmp_path / "configure.json"
    beside = {"weight_scales": [], "outputs_quantized": [True]}
    ops = [
        legacy(),
        legacy(id=1, name="linear", input_scales=[0.5], weight_scales=[[0.01] * 16]),
        legacy(id=2, name="relu", **beside),
        legacy(id=3, name="linear", input_scales=[0.25], weight_scales=[], inputs_quantized=[False]),
    ]
    path.write_text(json.dumps(ops, indent=4))
    model = converted(path)
    assert float(model.conv.input_scale) == pytest.approx(0.02742583677172661)
    assert int(model.conv.input_zero_point) == 125
    assert model.conv.weight_scale.tolist() == pytest.approx([0.0008] * 10)
    assert float(model.body.input_scale) == 0.5
    assert type(model.head) is nn.Linear
    path.write_text(json.dumps([*ops, legacy(id=4, name="linear")], indent=4))
    with pytest.raises(ConfigError, match=r"line \d+: name of op 4 .* none called 'linear' is left"):
        converted(path)


class Residual(nn.Module):
    """A residual block with a classifier: ops with and without weights, as the archived project lists them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x) + x)
        return self.fc(torch.flatten(self.pool(x), 1))


IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def as_ipex_wrote() -> list[dict[str, Any]]:
    """The file of `Residual`: one object per op in execution order, inputs named by the output that they are, no module names, and
    scales as its observers found them (here ours, so that the model is a good one)."""
    conf = QuantConf()
    with torch.no_grad(), calibrate(conf):
        Residual().eval()(IMAGE)
    found = {op.module: op for op in conf.ops}
    add = next(op for op in conf.ops if op.name == "add")
    places = [
        ("conv2d", found["conv1"], ["conv2d0.input0"]), ("relu", None, ["conv2d0.output0"]),
        ("conv2d", found["conv2"], ["relu1.output0"]), ("add", add, ["conv2d2.output0", "relu1.output0"]),
        ("relu", None, ["add3.output0"]), ("adaptive_avg_pool2d", None, ["relu4.output0"]),
        ("flatten", None, ["adaptive_avg_pool2d5.output0"]), ("linear", found["fc"], ["flatten6.output0"]),
    ]  # fmt: skip
    ops = []
    for i, (name, op, flow) in enumerate(places):
        weighted = op is not None and op.weight_scales
        ops.append(
            {
                "id": i, "name": name, "algorithm": "min_max",
                "weight_granularity": "per_channel",
                "input_scales": op.input_scales if op else [0.05] * len(flow),
                "input_zero_points": op.input_zero_points if op else [0] * len(flow),
                "output_scales": op.output_scales if op else [0.05], "output_zero_points": op.output_zero_points if op else [0],
                "weight_scales": op.weight_scales if weighted else [],
                "input_quantized_dtypes": ["uint8"] * len(flow), "output_quantized_dtypes": ["uint8"],
                "inputs_quantized": [name != "add"] * len(flow), "outputs_quantized": [name in ("relu", "adaptive_avg_pool2d", "flatten")],
                "inputs_flow": flow, "outputs_flow": [f"{name}{i}.output0"],
            }
        )  # fmt: skip
    return ops


@torch.no_grad()
def test_a_whole_file_of_the_archived_project(tmp_path: Path) -> None:
    ops, path = as_ipex_wrote(), tmp_path / "configure.json"

    def model(**edits: dict[str, Any]) -> Any:
        for op in ops:
            op.update(edits.get(f"op{op['id']}", {}))
        path.write_text(json.dumps(ops, indent=4))
        return convert(Residual().eval(), QuantConf(path), IMAGE)

    plain = model()
    kinds = [type(plain.get_submodule(name)) for name in ("conv1", "conv2", "fc")]
    assert kinds == [Int8Conv2d, Int8Conv2d, Int8Linear]
    for place, name in ((0, "conv1"), (2, "conv2"), (7, "fc")):
        module = plain.get_submodule(name)
        assert float(module.input_scale) == pytest.approx(ops[place]["input_scales"][0])
        assert int(module.input_zero_point) == ops[place]["input_zero_points"][0]
        assert module.weight_scale.tolist() == pytest.approx(ops[place]["weight_scales"][0])
    expected = Residual().eval()(IMAGE)
    assert 0 < (plain(IMAGE) - expected).abs().max() < 0.1 * expected.abs().max()

    edited = model(
        op2={"inputs_quantized": [False]},
        op3={"inputs_quantized": [True, True]},
        op7={"weight_granularity": "per_tensor"},
    )
    assert type(edited.conv2) is nn.Conv2d and edited.fc.weight_scale.unique().numel() == 1
    assert any(isinstance(m, Int8Add) for m in edited.modules()) and not any(
        isinstance(m, Int8Add) for m in plain.modules()
    )
    with pytest.raises(ConfigError, match=r"line \d+: name of op 7 .* none called 'conv2d' is left"):
        model(op7={"name": "conv2d"})


class Pooled(nn.Module):
    """A convolution whose pixels are averaged: by windows of a module, and as a whole by a function, which is no op."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool, self.head = nn.Conv2d(10, 8, 3), nn.AvgPool2d(2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(self.pool(torch.relu(self.conv(x))), 1).flatten(1))


def test_average_pooling_is_an_op_with_a_grid_of_its_own(tmp_path: Path) -> None:
    conf = QuantConf()
    with torch.no_grad(), calibrate(conf):
        Pooled().eval()(EXAMPLE)
    assert [(op.name, op.module) for op in conf.ops] == [("conv2d", "conv"), ("avg_pool2d", "pool"), ("linear", "head")]
    conf.save(tmp_path / "configure.json")
    ops = json.loads((tmp_path / "configure.json").read_text())
    ops[1]["input_scales"], ops[1]["input_zero_points"] = [0.25], [3]
    (tmp_path / "configure.json").write_text(json.dumps(ops))
    int8 = convert(Pooled().eval(), QuantConf(tmp_path / "configure.json"), EXAMPLE)
    assert isinstance(int8.pool, Int8AvgPool2d)
    assert (int8.pool.input_scale, int8.pool.input_zero_point) == (0.25, 3)
    ops[1]["inputs_quantized"] = [False]
    (tmp_path / "configure.json").write_text(json.dumps(ops))
    int8 = convert(Pooled().eval(), QuantConf(tmp_path / "configure.json"), EXAMPLE)
    assert type(int8.pool) is nn.AvgPool2d and isinstance(int8.conv, Int8Conv2d)
