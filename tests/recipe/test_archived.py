"""Files of Intel Extension for PyTorch 2.x: read, matched with modules and calls, edited, refused with the line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import ConfigError, QuantConf, calibrate, convert
from optimum_int8.nn import Int8Add, Int8Conv2d, Int8Linear, Int8MatMul
from optimum_int8.recipe.archived import _name

FILE = Path(__file__).with_name("configure_2x.json")
EXAMPLE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(3))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        z = torch.matmul(y, y.transpose(-1, -2)).softmax(-1)
        z = z[..., :4] + y
        return torch.add(z, y)


class Net(nn.Module):
    """What the file's model computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.block, self.head = nn.Conv2d(3, 4, 3), Block(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x)).flatten(2).transpose(1, 2)
        return self.head(torch.mean(self.block(y), 1))


def edited(tmp_path: Path, edit: Any) -> Path:
    modules = json.loads(FILE.read_text())
    edit(modules[" "]["q_op_infos"], modules["block"]["q_op_infos"])
    path = tmp_path / "configure.json"
    path.write_text(json.dumps(modules, indent=4))
    return path


def test_the_ops_in_the_order_in_which_they_ran() -> None:
    ops = QuantConf(FILE).ops
    assert [(op.id, op.name, op.module, op.owner, op.is_quantized) for op in ops] == [
        (0, "conv2d", "conv", None, True), (1, "relu", None, "", True), (2, "linear", "block.inner", None, True),
        (3, "matmul", None, "block", True), (4, "add", None, "block", True), (5, "add", None, "block", False),
        (6, "linear", "head", None, True),
    ]  # fmt: skip
    assert (ops[0].input_scales, ops[0].input_zero_points, ops[0].input_quantized_dtypes) == (
        [0.03125],
        [120],
        ["uint8"],
    )
    assert ops[0].weight_scales == [[0.0078125, 0.00390625, 0.0078125, 0.00390625]]
    assert {op.algorithm for op in ops} == {"mse"}
    assert ops[1].inputs_flow == ["conv2d0.output0"] and ops[2].inputs_flow == ["relu1.output0"]
    assert ops[3].input_quantized_dtypes == ["uint8", "int8"]
    assert ops[3].input_scales[1] == pytest.approx(0.03125 * 155 / 127) and ops[3].input_zero_points == [128, 0]
    assert [op.outputs_quantized for op in ops] == [[False]] * 4 + [[True]] + [[False]] * 2


@torch.no_grad()
def test_the_model() -> None:
    int8: Any = convert(Net().eval(), QuantConf(FILE), EXAMPLE)
    assert isinstance(int8.conv, Int8Conv2d) and isinstance(int8.head, Int8Linear)
    assert (float(int8.conv.input_scale), int(int8.conv.input_zero_point)) == (0.03125, 120)
    assert int8.conv.weight_scale.tolist() == [0.0078125, 0.00390625, 0.0078125, 0.00390625]
    assert isinstance(int8.block.matmul_2, Int8MatMul)
    (total,) = [m for m in int8.modules() if isinstance(m, Int8Add)]
    assert total is int8.block.add_3 and total.inputs_quantized == [True, True]
    assert (float(total.output_scale), int(total.output_zero_point)) == (0.0625, 120)
    expected = Net()(EXAMPLE)
    assert (int8(EXAMPLE) - expected).square().mean() < 0.05 * expected.square().mean()


@torch.no_grad()
def test_it_is_saved_as_ours_and_calibrated_with(tmp_path: Path) -> None:
    conf = QuantConf(FILE)
    conf.save(tmp_path / "ours.json")
    again = QuantConf(tmp_path / "ours.json")
    assert again.ops == conf.ops
    results = [convert(Net().eval(), c, EXAMPLE)(EXAMPLE) for c in (QuantConf(FILE), again)]
    assert torch.equal(*results)
    with calibrate(again):
        Net().eval()(EXAMPLE)
    by_name = {op.module: op for op in again.ops}
    assert by_name["conv"].algorithm == "mse" and by_name["conv"].input_scales != [0.03125]


@torch.no_grad()
def test_force_dtype_and_the_weights_scheme_take_effect(tmp_path: Path) -> None:
    def edit(root: Any, block: Any) -> None:
        root["2"]["input_tensor_infos"][0]["force_dtype"] = "torch.float32"
        block["0"]["weight_observer"]["qscheme"] = "torch.per_tensor_symmetric"
        block["0"]["weight_tensor_infos"][0].update(scale=[0.0078125], zero_point=[0])
        block["0"]["input_tensor_infos"][0].update(force_dtype="torch.qint8", zero_point=[-100])

    int8: Any = convert(Net().eval(), QuantConf(edited(tmp_path, edit)), EXAMPLE)
    assert type(int8.head) is nn.Linear and isinstance(int8.block.inner, Int8Linear)
    assert int8.block.inner.weight_scale.unique().numel() == 1
    assert int(int8.block.inner.input_zero_point) == 28


def test_two_calls_of_a_module_are_one_op_on_the_wider_range(tmp_path: Path) -> None:
    def edit(root: Any, block: Any) -> None:
        again = json.loads(json.dumps(root["2"]))
        again["input_tensor_infos"][0].update(scale=[0.125], zero_point=[10])
        again["output_tensor_infos"][0]["id"] = 11
        root["3"] = again

    op = QuantConf(edited(tmp_path, edit)).ops[-1]
    assert op.module == "head"
    low, high = -100 * 0.0625, 245 * 0.125
    assert op.input_scales[0] == pytest.approx((high - low) / 255)


@pytest.mark.parametrize(
    ("place", "values", "key", "expected"),
    [
        ("input_tensor_infos", {"scale": [0.0]}, '"scale"', "above 0"),
        ("input_tensor_infos", {"scale": [0.1, 0.2]}, '"scale"', "one for each of inputs_quantized"),
        ("input_tensor_infos", {"zero_point": [300]}, '"zero_point"', "0 to 255"),
        ("input_tensor_infos", {"scale": {"0_0": [0.1]}}, '"scale"', "SmoothQuant"),
        ("weight_tensor_infos", {"zero_point": [1, 0, 0]}, '"weight_tensor_infos"', "symmetric weight"),
        ("weight_tensor_infos", {"scale": [0.1, 0.2]}, '"weight_tensor_infos"', "1 or 3"),
        (None, {"fqn": "haed"}, '"fqn"', "qualified name"),
        (None, {"op_type": "<class 'torch.nn.modules.conv.Conv2d'>"}, '"op_type"', "'linear'"),
        (None, {"input_tensor_infos": {}}, '"op_type"', "an op without input_tensor_infos"),
    ],
)
def test_what_cannot_be_is_refused_with_the_line(
    tmp_path: Path, place: str | None, values: dict[str, Any], key: str, expected: str
) -> None:
    def edit(root: Any, block: Any) -> None:
        (root["2"] if place is None else root["2"][place][0]).update(values)

    path = edited(tmp_path, edit)
    text = path.read_text()
    start = list(_starts(text))[2]
    line = text.count("\n", 0, text.index(key, start)) + 1
    with pytest.raises(ConfigError) as caught:
        convert(Net().eval(), QuantConf(path), EXAMPLE)
    assert f"configure.json, line {line}:" in str(caught.value)
    assert expected in str(caught.value)


def _starts(text: str) -> Any:
    at = text.find('"op_type":')
    while at >= 0:
        yield at
        at = text.find('"op_type":', at + 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', "module 'a' has no q_op_infos"),
        ('{"a": {"q_op_infos": [], "nonq_op_infos": {}, "layer_output_infos": []}}', "has no q_op_infos"),
        ('{"a": ', "line 1: this is not JSON"),
        ('{"a": NaN}', "not JSON"),
        ("{}", "an empty JSON object"),
    ],
)
def test_other_objects_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "configure.json").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        QuantConf(tmp_path / "configure.json")


def test_a_function_that_the_module_does_not_call_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda root, block: block["1"].update(fqn="head"))
    with pytest.raises(ConfigError, match=r"name of op 3 \(matmul\).*none called 'matmul' is left"):
        convert(Net().eval(), QuantConf(path), EXAMPLE)


@pytest.mark.parametrize(
    ("op_type", "name"),
    [
        (str(nn.Linear), "linear"), (str(nn.Conv2d), "conv2d"), (str(nn.AdaptiveAvgPool2d), "adaptive_avg_pool2d"),
        (str(torch.matmul), "matmul"), (str(torch.bmm), "matmul"), (str(Tensor.bmm), "matmul"), (str(Tensor.add), "add"),
        (str(torch.add), "add"), (str(torch.relu), "relu"), (str(nn.functional.relu), "relu"), (str(nn.functional.linear), "linear"),
        (str(nn.functional.conv2d), "conv2d"), (str(nn.functional.max_pool2d), "max_pool2d"), (str(Tensor.flatten), "flatten"),
        (str(nn.functional.adaptive_avg_pool2d), "adaptive_avg_pool2d"), ("torch_ipex.interaction_forward", "torch_ipex.interaction_forward"),
    ],
    ids=lambda value: re.sub(r" at 0x[0-9a-f]+", "", value),
)  # fmt: skip
def test_names(op_type: str, name: str) -> None:
    assert _name(op_type) == name
