"""Sums and concatenations of INT8 values: what stays uint8, what stays float, and that fused is unfused to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from optimum_int8.fx import agree
from optimum_int8.fx.rewrite import tensor_of
from optimum_int8.kernels import library
from optimum_int8.lowering import ProgramCall
from optimum_int8.passes import pipeline
from tests.passes.graphs import Case, aten, linear, ours
from tests.passes.images import conv, image
from tests.passes.sums import GRIDS, SUM_CASES, added, joined, sums

pytestmark = pytest.mark.skipif(library() is None, reason="without the native library graphs are not rewritten")


@pytest.mark.parametrize("case", SUM_CASES)
def test_the_whole_is_one_program_with_equal_bits(case: str) -> None:
    made = SUM_CASES[case]()
    graph = pipeline.no_grad_compile(made.graph, made.inputs, check=False)
    left = {str(n.target) for n in graph.graph.nodes if n.op == "call_function"}
    assert left <= {"aten.permute.default", "aten.sym_size.int"}
    assert sum(isinstance(m, ProgramCall) for m in graph.modules()) == 1
    if case.startswith("sums"):  # images fuse activations into their convolutions
        assert torch.equal(made.run()[0], made.expected[0])


@pytest.mark.parametrize("output", [False, True])
def test_values_stay_int8_through_a_sum_and_a_concatenation(output: bool) -> None:
    made = sums(output)
    made.before("lower_images")
    assert made.count(ours.add.default) == made.count(ours.dequantize.default) == made.count(aten.cat.default) == 0
    assert made.count(ours.add_quantized.default) == 1
    assert made.count(ours.cat_quantized.default) == (
        3 if output else 1
    )  # two of them bring a result to its reader's grid
    assert made.count(ours.quantize.default) == 3  # of the input, on three grids
    assert made.count(ours.linear_quantized.default) == 4


def test_equal_grids_need_no_step_between() -> None:
    reader = linear()
    total = added(True)
    total.set_qparams("output", float(reader.input_scale), int(reader.input_zero_point))
    made = Case(lambda m, x: m.c(m.add(m.a(x), m.b(x))), a=linear(high=2.0), b=linear(high=2.5), c=reader, add=total)
    made.before("lower_images")
    assert made.count(ours.add_quantized.default) == 1 and made.count(ours.cat_quantized.default) == 0
    assert torch.equal(made.run()[0], made.expected[0])


def test_a_plain_concatenation_is_quantized_in_its_parts() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.c(torch.cat((m.a(x), torch.tanh(x), m.b(x)), -1))

    made = Case(forward, a=linear(outer=17), b=linear(outer=3), c=linear(84, 8))
    made.before("lower_images")
    assert made.count(aten.cat.default) == 0 and made.count(ours.linear_quantized.default) == 2
    pipeline.no_grad_compile(made.graph, made.inputs, check=False)
    assert torch.equal(made.run()[0], made.expected[0])


@pytest.mark.parametrize("final", [torch.relu, F.silu, lambda y: y])
def test_a_residual_on_a_grid_goes_into_the_convolution_as_bytes(final: Callable[[Tensor], Tensor]) -> None:
    """As a recipe says it that quantizes one input of a sum: the other one's convolution reads uint8, and writes it."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = torch.relu(m.a(x))
        return m.c(final(m.add(m.b(y), y)))

    parts = {"a": conv(8, 33), "b": conv(33, 33), "c": conv(33, 5, 1)}
    made = Case(forward, image(), add=added(quantized=(False, True)), **parts)
    made.before("lower_images")
    (sums,) = [n for n in made.graph.graph.nodes if n.target is ours.conv_quantized.default and n.args[11] is not None]
    assert sums.args[11].meta["val"].dtype == torch.uint8
    grid = [tensor_of(made.graph, node) for node in sums.args[15:]]
    assert grid == [torch.tensor(GRIDS[1][0]), torch.tensor(GRIDS[1][1])]
    assert made.count(ours.dequantize.default) == made.count(aten.add.Tensor) == 0
    graph = pipeline.no_grad_compile(made.graph, made.inputs, check=True)
    with torch.no_grad():
        assert agree(graph(*made.inputs), made.expected, 0.02)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: (m.c(torch.cat((m.a(x), m.b(x)), 1)),),  # along the tokens
        lambda m, x: (lambda y: (m.c(y), y))(m.add(m.a(x), m.b(x))),  # the float sum is read too
        lambda m, x: (m.c(m.add(m.a(x), m.b(x[:, :1]))),),  # one row for all
    ],
)
def test_others_stay_float_and_right(forward: Callable[..., Any]) -> None:
    made = Case(forward, a=linear(high=2.0), b=linear(high=2.5), c=linear(), add=added())
    made.before("lower_images")
    assert made.count(ours.add_quantized.default) == made.count(ours.cat_quantized.default) == 0
    graph = pipeline.no_grad_compile(made.graph, made.inputs, check=False)
    assert all(torch.equal(a, b) for a, b in zip(graph(*made.inputs), made.expected, strict=True))


def test_along_the_height_of_an_image_stays_a_concatenation_of_floats() -> None:
    made = Case(
        lambda m, x: m.c(m.cat([m.a(x), m.b(x)], 2)), image(), a=conv(8, 9), b=conv(8, 9, 1), c=conv(9, 4), cat=joined()
    )
    made.before("lower_images")
    assert made.count(aten.cat.default) == 1 and made.count(ours.cat_quantized.default) == 0
    graph = pipeline.no_grad_compile(made.graph, made.inputs, check=False)
    assert torch.equal(graph(*made.inputs)[0], made.expected[0])
