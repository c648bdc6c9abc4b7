"""Residual paths between convolutions: what reads uint8, what stays float32, and that every way to run a model gives the same bits."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import optimum_int8
from optimum_int8 import Int8Config, QuantConf, calibrate, convert, kernels, operators, quantize
from optimum_int8.kernels import library
from optimum_int8.passes import find_blocks, pipeline
from tests.kernels.conftest import forget_library, without_library  # noqa: F401
from tests.models import reloaded
from tests.passes.graphs import Case, aten, linear, norm, ours
from tests.passes.images import batch_norm, bottleneck, conv, image, sequence
from tests.passes.test_rewrites_conv import Frozen

needs_library = pytest.mark.skipif(library() is None, reason="without the native library graphs are not rewritten")


class Body(nn.Module):
    """Two blocks behind a stem, without anything that the passes round another way."""

    def __init__(self, kind: type[nn.Module] = nn.Conv2d) -> None:
        super().__init__()
        self.stem = kind(3, 33, 3, padding=1)
        self.blocks = nn.ModuleList(nn.ModuleList([kind(33, 16, 1), kind(16, 33, 3, padding=1)]) for _ in range(2))
        self.head = kind(33, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        for first, second in self.blocks:
            y = F.relu(second(torch.relu(first(y))) + y)
        return self.head(y)


def network(kind: type[nn.Module] = nn.Conv2d) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Body(kind)).eval()


def example(kind: type[nn.Module] = nn.Conv2d) -> Tensor:
    shape = (2, 3, 9, 7) if kind is nn.Conv2d else (2, 3, 21)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def int8_network(kind: type[nn.Module] = nn.Conv2d, **settings: Any) -> nn.Module:
    config = Int8Config(approach="static", **settings)
    return quantize(network(kind), config, [example(kind)], progress=False)


def by_modules(model: nn.Module, x: Tensor) -> Tensor:
    """What an INT8 network with INT8 residuals computes, said with its modules."""
    (body,) = model.children()
    y = torch.relu(body.stem(x))
    for first, second in body.blocks:
        grid = first.input_scale, first.input_zero_point
        rounded = operators.quantize(y, *grid)
        if first.activation_bits < 8:
            rounded = rounded.clamp(max=2**first.activation_bits - 1)
        y = F.relu(second(torch.relu(first(y))) + torch.ops.optimum_int8.dequantize(rounded, *grid))
    return body.head(y)


def restored(model: nn.Module, metadata: dict[str, Any], kind: type[nn.Module] = nn.Conv2d) -> nn.Module:
    return reloaded(network(kind), model, metadata)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Conv1d])
def test_every_way_to_run_a_model_gives_the_same_bits(
    kind: type[nn.Module],
    tmp_path: Path,
    without_library: Callable[[], None],  # noqa: F811
) -> None:
    int8, x = int8_network(kind), example(kind)
    expected = int8(x)
    assert torch.equal(expected, by_modules(int8, x))
    assert not torch.equal(expected, int8_network(kind, residuals="float32")(x))
    assert torch.equal(int8(x[:1]), expected[:1])
    for isa in kernels.info()["isa_found"]:
        with kernels.use_isa(isa):
            assert torch.equal(int8(x), expected)
    again = restored(int8, json.loads(json.dumps(int8.int8_metadata)), kind)
    assert torch.equal(again(x), expected)
    assert torch.equal(copy.deepcopy(int8)(x), expected)
    optimum_int8.save(int8, tmp_path / "residuals.pt2", x)
    assert torch.equal(optimum_int8.load(tmp_path / "residuals.pt2")(x), expected)
    without_library()
    assert torch.equal(optimum_int8.load(tmp_path / "residuals.pt2")(x), expected)
    plain = copy.deepcopy(int8)
    assert torch.equal(plain(x), expected)
    optimum_int8.save(plain, tmp_path / "plain.pt2", x)
    assert torch.equal(optimum_int8.load(tmp_path / "plain.pt2")(x), expected)


@pytest.mark.slow
@torch.no_grad()
def test_a_checkpoint_that_says_nothing_of_residuals_keeps_float32() -> None:
    int8, x = int8_network(residuals="float32"), example()
    old = copy.deepcopy(int8.int8_metadata)
    del old["config"]["residuals"]
    unfused = int8_network(fuse=False)
    assert torch.equal(restored(int8, old)(x), int8(x))
    assert torch.equal(unfused(x), int8(x))


@pytest.mark.slow
@torch.no_grad()
def test_a_recipe_decides_for_its_sums_itself() -> None:
    conf, x = QuantConf(), example()
    with calibrate(conf):
        network()(x)
    int8 = convert(network(), conf, x)
    assert torch.equal(int8(x), int8_network(residuals="float32")(x))


@torch.no_grad()
def test_fewer_levels_are_those_of_the_convolution() -> None:
    int8, x = int8_network(activation_bits=4), example()
    assert torch.equal(int8(x), by_modules(int8, x))


@pytest.mark.slow
@torch.no_grad()
def test_training_saw_sums_in_float32() -> None:
    int8 = int8_network()
    int8.int8_metadata["config"]["approach"] = "qat"
    assert torch.equal(restored(int8, int8.int8_metadata)(example()), int8_network(residuals="float32")(example()))


@needs_library
def test_a_bottleneck_writes_and_adds_uint8() -> None:
    made = bottleneck()
    assert made.count(ours.dequantize.default) == 0
    assert pipeline.keep_residuals_int8(made.graph) == 1  # the shortcut of the first block has no grid
    assert made.count(ours.dequantize.default) == 1
    assert pipeline.keep_residuals_int8(made.graph) == 0
    made.before("lower_images")
    assert made.count(ours.conv_both.default) == made.count(ours.dequantize.default) == 0
    assert made.count(ours.conv_quantized.default) == 4 and made.count(ours.quantize.default) == 1
    last = [n for n in made.graph.graph.nodes if n.target is ours.conv.default][-1]
    assert last.args[11].meta["val"].dtype == torch.uint8


@needs_library
def test_over_a_sequence_too() -> None:
    int8 = int8_network(nn.Conv1d)
    with torch.no_grad():
        int8(example(nn.Conv1d))
    (block,) = find_blocks(int8).values()
    (variant,) = block.variants.values()
    left = {str(n.target) for n in variant.graph.graph.nodes if n.op == "call_function"}  # type: ignore[union-attr]
    assert left <= {"aten.permute.default", "aten.unsqueeze.default", "aten.squeeze.dim", "aten.sym_size.int"}


PARTS = {"a": conv(8, 8), "b": conv(8, 8, 1), "c": conv(8, 8)}
GOES: dict[str, Callable[[Any, Tensor], Any]] = {
    "the identity": lambda m, x: m.a(x) + x,
    "the identity, first": lambda m, x: x + m.a(x),
    "in place": lambda m, x: m.a(x).add_(x),
    "behind a norm and an activation": lambda m, x: F.silu(m.n(m.b(m.a(x)))) + x,
    "behind a frozen norm": lambda m, x: m.f(m.b(F.relu(m.a(x)))) + x,
    "dropped out": lambda m, x: F.dropout(m.b(m.a(x)), 0.1, False) + x,
    "made in place": lambda m, x: (lambda y: m.b(m.a(y)) + y)(F.relu(m.c(x), inplace=True)),
    "read by a convolution after the sum": lambda m, x: (lambda y: (m.b(x) + y, m.a(y)))(m.c(x)),
}
STAYS: dict[str, Callable[[Any, Tensor], Any]] = {
    "a shortcut that is only added": lambda m, x: m.a(x) + m.b(x),
    "both sides are read": lambda m, x: (lambda y, z: (y + z, m.a(y), m.a(z)))(m.b(x), m.c(x)),
    "twice itself": lambda m, x: (lambda y: (y + y, m.a(y)))(m.b(x)),
    "scaled": lambda m, x: torch.add(m.a(x), x, alpha=2),
    "one row for all": lambda m, x: m.a(x) + x[:1, :, :1],
    "changed in between": lambda m, x: (lambda y: (lambda z: m.b(z) + y.relu_())(m.a(y)))(m.c(x)),
    "the sum is written into it": lambda m, x: (lambda y: (lambda z: (y.add_(z), y))(m.a(y)))(m.c(x)),
    "a linear's": lambda m, x: m.n1(m.l(x) + x),
}


@pytest.mark.parametrize("name", GOES)
def test_goes(name: str) -> None:
    made = Case(GOES[name], image() / 4, n=batch_norm(8), f=Frozen(8), **PARTS)
    assert pipeline.keep_residuals_int8(made.graph) == 1, made.graph.graph
    before = made.run()
    assert not torch.equal(before[0], made.expected[0])
    torch.testing.assert_close(before[0], made.expected[0], rtol=0.05, atol=0.02)
    compiled = pipeline.no_grad_compile(made.graph, made.inputs, check=True)
    with torch.no_grad():
        assert pipeline.agree(compiled(*made.inputs), before, 0.02)
    if library() is not None:
        assert made.count(aten.add.Tensor) == made.count(aten.add_.Tensor) == 0


@pytest.mark.parametrize("name", STAYS)
def test_stays(name: str) -> None:
    if "linear" in name:
        made = Case(STAYS[name], l=linear(), n1=norm())
    else:
        made = Case(STAYS[name], image(), **PARTS)
    assert pipeline.keep_residuals_int8(made.graph) == 0
    assert all(torch.equal(a, b) for a, b in zip(made.run(), made.expected, strict=True))


def test_a_dynamic_model_has_no_grids() -> None:
    for made in (bottleneck(False), sequence(False)):
        assert pipeline.keep_residuals_int8(made.graph) == 0
