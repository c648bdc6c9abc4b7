"""Functional ops in a module's own code: in the recipe, edited, converted, saved and loaded."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import optimum_int8
from optimum_int8 import CheckpointError, ConfigError, Int8Config, QuantConf, calibrate, convert, numerics
from optimum_int8.hub.checkpoint import check_metadata
from optimum_int8.nn import FunctionalWeight, Int8Add, Int8Cat, Int8Conv2d, Int8Linear, Int8MatMul
from optimum_int8.restore import build_skeleton, describe
from optimum_int8.sites import Sites
from tests.models import reloaded


class Mixer(nn.Module):
    """Weights as bare parameters, products of activations, a sum and a concatenation, and a branch on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 16) / 4)
        self.bias = nn.Parameter(torch.randn(24))
        self.scale = nn.Parameter(torch.randn(8, 16) / 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, bias=self.bias)
        scores = torch.matmul(y, y.transpose(-1, -2)) / 24
        mixed = scores.softmax(-1) @ y
        return torch.cat([mixed + y, F.linear(x, self.scale * 2.0)], -1)


class Net(nn.Module):
    """A convolution with bare weights, two mixers and a linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.filters = nn.Parameter(torch.randn(16, 3, 3, 3) / 3)
        self.first, self.second = Mixer(), Mixer()
        self.between, self.head = nn.Linear(32, 16), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.filters, None, 2, padding=1).flatten(2).transpose(1, 2)
        return self.head(self.second(self.between(self.first(y))))


EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def calibrated(model: nn.Module, *inputs: Tensor, products: bool = True) -> QuantConf:
    conf = QuantConf()
    with torch.no_grad(), calibrate(conf):
        for x in inputs:
            model.eval()(x)
    for op in conf.ops:
        if op.name == "matmul":  # float by default
            op.inputs_quantized = [products] * 2
    return conf


def close(found: Tensor, expected: Tensor, tolerance: float = 0.06) -> bool:
    return 0 < (found - expected).square().mean().sqrt() < tolerance * expected.square().mean().sqrt()


MIXER = [
    ("linear", "weight.linear", True), ("matmul", "matmul_2", False), ("matmul", "matmul_3", False), ("add", "add_4", False),
    ("cat", "cat_4", False),
]  # fmt: skip


@torch.no_grad()
def test_the_recipe_and_the_model() -> None:
    model = Net()
    conf = calibrated(model, EXAMPLE, products=False)
    found = [(op.name, op.module, op.is_quantized) for op in conf.ops]
    first = [(name, f"first.{site}", on) for name, site, on in MIXER]
    assert found[0] == ("conv2d", "filters.conv2d", True)
    assert found[1:6] == first
    assert [op.input_quantized_dtypes for op in conf.ops[1:4]] == [["uint8"], ["uint8", "int8"], ["uint8", "int8"]]
    assert conf.ops[4].inputs_flow == ["matmul3.output0", "linear1.output0"]
    assert len(conf.ops[1].weight_scales[0]) == 24
    int8: Any = convert(model, calibrated(model, EXAMPLE), EXAMPLE)
    assert isinstance(int8.filters, FunctionalWeight) and isinstance(int8.filters.conv2d, Int8Conv2d)
    assert isinstance(int8.first.weight.linear, Int8Linear) and isinstance(int8.first.matmul_2, Int8MatMul)
    assert isinstance(int8.first, Mixer) and type(int8.first) is type(int8.second)
    assert isinstance(model.first.weight, nn.Parameter)
    assert close(int8(EXAMPLE), model(EXAMPLE))


@torch.no_grad()
def test_a_functional_linear_equals_the_module_to_the_bit() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(16, 24)

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(x)

    class Functional(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight, self.bias)

    torch.manual_seed(0)
    plain, x = Plain(), torch.randn(5, 16)
    functional = Functional()
    functional.weight, functional.bias = plain.proj.weight, plain.proj.bias
    del functional.proj
    results = [convert(m, calibrated(m, x), x)(x) for m in (plain, functional)]
    assert torch.equal(*results)


@torch.no_grad()
def test_matmul_is_what_numerics_says() -> None:
    int8: Any = convert(Net(), calibrated(Net(), EXAMPLE), EXAMPLE)
    product = int8.first.matmul_2
    for a, b in (
        ((2, 5, 24), (2, 24, 7)),
        ((2, 3, 5, 24), (24, 7)),
        ((5, 24), (3, 24, 1)),
        ((1, 4, 33, 70), (2, 1, 70, 65)),
        ((2, 3, 520), (2, 520, 4)),
    ):
        x, y = torch.randn(a), torch.randn(b)
        qx = numerics.quantize_affine(x, product.input0_scale, product.input0_zero_point)
        qy = numerics.quantize_affine(y, product.input1_scale, 128)
        grids = product.input0_scale, product.input0_zero_point
        assert torch.equal(product(x, y), numerics.matmul(qx, *grids, qy, product.input1_scale))
        exact = ((qx.double() - float(grids[1])) * float(grids[0])) @ (
            (qy.double() - 128) * float(product.input1_scale)
        )
        torch.testing.assert_close(product(x, y), exact.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("place", [2, 4, 5])
def test_edits_take_effect(tmp_path: Path, place: int) -> None:
    model = Net()
    calibrated(model, EXAMPLE).save(tmp_path / "configure.json")
    ops = json.loads((tmp_path / "configure.json").read_text())
    before: Any = convert(model, QuantConf(tmp_path / "configure.json"), EXAMPLE)
    ops[place]["inputs_quantized"] = [not on for on in ops[place]["inputs_quantized"]]
    (tmp_path / "configure.json").write_text(json.dumps(ops, indent=4))
    after: Any = convert(model, QuantConf(tmp_path / "configure.json"), EXAMPLE)
    leaf = ops[place]["module"].removeprefix("first.")
    assert (leaf in before.first._modules) != (leaf in after.first._modules)
    assert not torch.equal(before(EXAMPLE), after(EXAMPLE))
    assert close(after(EXAMPLE), model(EXAMPLE), 0.1)


@torch.no_grad()
def test_a_sum_and_a_concatenation_on_int8() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((x + x.flip(0), x))

    x = torch.randn(4, 8)
    conf = calibrated(nn.Sequential(Sum()), x)
    conf.ops[0].inputs_quantized, conf.ops[1].inputs_quantized = [True, True], [True, False]
    int8: Any = convert(nn.Sequential(Sum()), conf, x)
    assert isinstance(int8[0].add_1, Int8Add) and isinstance(int8[0].cat_1, Int8Cat)

    def on(grid: tuple[Tensor, Tensor], value: Tensor) -> Tensor:
        return numerics.dequantize_affine(numerics.quantize_affine(value, *grid), *grid)

    total = on(int8[0].add_1.qparams(0), x) + on(int8[0].add_1.qparams(1), x.flip(0))
    assert torch.equal(int8(x), torch.cat((on(int8[0].cat_1.qparams(0), total), x)))


def test_impossible_edits() -> None:
    conf = calibrated(Net(), EXAMPLE)
    conf.ops[2].input_quantized_dtypes = ["uint8", "uint8"]
    with pytest.raises(ConfigError, match="int8 for the second input of a matmul"):
        convert(Net(), conf, EXAMPLE)
    conf = calibrated(Net(), EXAMPLE)
    conf.ops[2].inputs_quantized = [True, False]
    with pytest.raises(ConfigError, match="all true or all false"):
        convert(Net(), conf, EXAMPLE)


def test_weights_that_cannot_be_replaced_are_listed_with_the_reason() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.lin = nn.Parameter(torch.randn(8, 8)), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.linear(x, self.weight) / self.weight.norm(), self.lin.weight)

    conf = calibrated(nn.Sequential(Normed(), nn.Linear(8, 8)), torch.randn(3, 8))
    assert [(op.module, op.is_quantized) for op in conf.ops] == [
        ("0.weight.linear", False), ("0.lin.weight.linear", False), ("1", True),
    ]  # fmt: skip
    assert "other functions" in conf.ops[0].why_not and "weight of a Linear" in conf.ops[1].why_not
    conf.ops[0].inputs_quantized = [True]
    with pytest.raises(ConfigError, match="other functions"):
        convert(nn.Sequential(Normed(), nn.Linear(8, 8)), conf, torch.randn(3, 8))


@pytest.mark.slow
@torch.no_grad()
def test_module_copy_checkpoint_and_file_agree_to_the_bit(tmp_path: Path) -> None:
    model = Net()
    conf = calibrated(model, EXAMPLE)
    conf.ops[4].inputs_quantized = [True, True]
    int8: Any = convert(model, conf, EXAMPLE)
    int8.save(tmp_path / "net.pt2")
    loaded = optimum_int8.load(tmp_path / "net.pt2")
    again = reloaded(Net(), int8)
    twins = [again, loaded, copy.deepcopy(int8), pickle.loads(pickle.dumps(int8))]
    for x in (EXAMPLE, EXAMPLE[:1], EXAMPLE.repeat(2, 1, 1, 1)):
        expected = int8(x)
        assert [torch.equal(twin(x), expected) for twin in twins] == [True] * 4


@torch.no_grad()
def test_a_changed_source_is_refused() -> None:
    int8: Any = convert(Net(), calibrated(Net(), EXAMPLE), EXAMPLE)
    metadata = json.loads(json.dumps(int8.int8_metadata))
    assert metadata["functional"]["first.matmul_3"]["source"] == "mixed = scores.softmax(-1) @ y"
    metadata["functional"]["first.matmul_3"]["source"] = "mixed = scores @ y"
    with pytest.raises(CheckpointError, match="forward has changed"):
        build_skeleton(Net(), metadata)


@torch.no_grad()
def test_loops_and_branches_share_the_site_of_their_line() -> None:
    class Loop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                if x.sum() > 0:
                    x = x @ x.T
                else:
                    x = (x @ x) @ x
                x = x / x.abs().max()
            return x

    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(Loop())
    conf = calibrated(model, x, -x.abs())
    assert sorted(op.module or "" for op in conf.ops) == ["0.matmul_3", "0.matmul_5", "0.matmul_5b"]
    conf.ops.sort(key=lambda op: op.id)
    int8: Any = convert(model, conf, x)
    assert close(int8(x), model(x), 0.2)


@pytest.mark.slow
@torch.no_grad()
def test_torch_compile_gives_the_same() -> None:
    int8: Any = convert(Net(), calibrated(Net(), EXAMPLE), EXAMPLE)
    compiled = torch.compile(int8, backend="eager")
    torch.testing.assert_close(compiled(EXAMPLE), int8(EXAMPLE), atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    "functional",
    [
        [], {"a.weight.linear": {}}, {"a.weight.linear": {"op": "conv3d"}}, {"b": {"op": "linear"}},
        {"a.weight.linear": {"op": "linear", "stride": -1}}, {"a.weight.linear": {"op": "linear"}, "c.matmul_1": {"op": "matmul"}},
        {"c.matmul_1": {"op": "matmul", "source": 3, "inputs_quantized": [True, True]}},
        {"c.matmul_1": {"op": "add", "source": "", "inputs_quantized": [True, True]}},
        {"c.matmul_1": {"op": "matmul", "source": "", "inputs_quantized": [1]}},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_descriptions_are_refused(functional: Any) -> None:
    good = {
        "a.weight.linear": {"op": "linear"},
        "c.matmul_1": {"op": "matmul", "source": "x @ y", "inputs_quantized": [True, True]},
    }
    modules = {"a.weight.linear": "linear", "c.matmul_1": "matmul"}
    metadata = describe(Int8Config(approach="static"), Sites(modules, {}))
    assert check_metadata({**metadata, "functional": good})["functional"] == good
    with pytest.raises(CheckpointError, match="functional"):
        check_metadata({**metadata, "functional": {**good, **functional} if functional else functional})
