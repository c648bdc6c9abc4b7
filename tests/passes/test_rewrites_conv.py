"""What each pass on convolutions takes, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optimum_int8.fx import agree
from optimum_int8.kernels import library
from optimum_int8.lowering import ProgramCall
from optimum_int8.passes import pipeline
from tests.passes.graphs import Case, aten, ours
from tests.passes.images import average, averages, batch_norm, bottleneck, conv, detector, image, sequence

pytestmark = pytest.mark.skipif(library() is None, reason="without the native library graphs are not rewritten")

BATCH_NORM = aten.batch_norm.default


def compiled(made: Case) -> list[ProgramCall]:
    graph = pipeline.no_grad_compile(made.graph, made.inputs, check=True)
    with torch.no_grad():
        assert agree(graph(*made.inputs), made.expected, 0.02)
    return [m for m in graph.modules() if isinstance(m, ProgramCall)]


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_becomes_scales_and_bias(affine: bool) -> None:
    made = Case(lambda m, x: m.n(m.c(x)), image(), c=conv(8, 6, bias=False), n=batch_norm(6, affine))
    made.before("fold_batch_norm")
    assert made.apply("fold_batch_norm") == 1 and made.count(BATCH_NORM) == 0
    torch.testing.assert_close(made.run()[0], made.expected[0], rtol=1e-5, atol=1e-5)


def test_a_batch_norm_stays_where_something_else_reads_the_convolution() -> None:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.c(x)
        return m.n(y), y

    made = Case(forward, image(), c=conv(8, 6), n=batch_norm(6))
    made.before("fold_batch_norm")
    assert made.apply("fold_batch_norm") == 0 and made.count(BATCH_NORM) == 1


def test_a_convolution_with_two_norms_keeps_both() -> None:
    made = Case(lambda m, x: m.n(m.c(x)) + m.k(m.c(x)), image(), c=conv(8, 6), n=batch_norm(6), k=batch_norm(6, False))
    made.before("fold_batch_norm")
    assert made.apply("fold_batch_norm") == 2  # two calls of one module: two operators, each with constants of its own
    torch.testing.assert_close(made.run()[0], made.expected[0], rtol=1e-4, atol=1e-4)


def test_a_batch_norm_that_measures_the_batch_stays() -> None:
    made = Case(lambda m, x: F.batch_norm(m.c(x), None, None, training=True), image(), c=conv(8, 6))
    made.before("fold_batch_norm")
    assert made.apply("fold_batch_norm") == 0 and made.count(BATCH_NORM) == 1


class Frozen(nn.Module):
    """A batch norm as detectors freeze it: four buffers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        norm = batch_norm(channels)
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.reshape(1, -1, 1, 1) * (self.running_var.reshape(1, -1, 1, 1) + 1e-5).rsqrt()
        return x * scale + (self.bias.reshape(1, -1, 1, 1) - self.running_mean.reshape(1, -1, 1, 1) * scale)


@pytest.mark.parametrize("bias", [True, False])
def test_a_frozen_batch_norm_becomes_scales_and_bias(bias: bool) -> None:
    made = Case(lambda m, x: torch.relu(m.n(m.c(x))), image(), c=conv(8, 6, bias=bias), n=Frozen(6))
    made.before("fold_batch_norm")
    assert made.apply("fold_batch_norm") == 2 and made.count(aten.mul.Tensor) == made.count(aten.add.Tensor) == 0
    torch.testing.assert_close(made.run()[0], made.expected[0], rtol=1e-5, atol=1e-5)
    assert len(compiled(made)) == 1


@pytest.mark.parametrize(
    "other",
    [lambda y: y * torch.ones(1, 6, 9, 7), lambda y: y * y.mean(), lambda y: y * torch.ones(7), lambda y: 2.0 - y],
)
def test_what_is_not_one_number_per_channel_does_not_fold(other: Any) -> None:
    made = Case(lambda m, x: other(m.c(x)), image(), c=conv(8, 6))
    made.before("fold_batch_norm")
    assert made.apply("fold_batch_norm") == 0


def test_a_constant_minus_a_convolution_does_not_fold_and_its_negation_does() -> None:
    for function, folds in ((lambda y, v: v - y, 0), (lambda y, v: y - v, 1), (lambda y, v: v + y, 1)):
        made = Case(
            lambda m, x, f=function: f(m.c(x), m.v.weight.view(6, 1, 1)), image(), c=conv(8, 6), v=batch_norm(6)
        )
        made.before("fold_batch_norm")
        assert made.apply("fold_batch_norm") == folds
        torch.testing.assert_close(made.run()[0], made.expected[0], rtol=1e-5, atol=1e-5)


def test_what_is_changed_in_place_is_read_changed() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.c(x)
        z = F.relu(y, inplace=True)
        return m.d(z) + y

    made = Case(forward, image(), c=conv(8, 8), d=conv(8, 8, 1))
    compiled(made)  # checks the result


@pytest.mark.parametrize("make", [bottleneck, detector, sequence])
def test_a_block_is_one_program(make: Any) -> None:
    made = make()
    programs = compiled(made)
    assert len(programs) == 1
    left = {str(n.target) for n in made.graph.graph.nodes if n.op == "call_function"}
    assert left <= {"aten.permute.default", "aten.squeeze.dim", "aten.unsqueeze.default", "aten.sym_size.int"}


def test_values_stay_int8_between_convolutions() -> None:
    made = bottleneck()
    made.before("lower_images")
    assert made.count(ours.quantize.default) == 1  # of the block's input, once for both readers
    assert made.count(ours.conv_quantized.default) == 3
    assert made.count(ours.conv_both.default) == 1  # the identity needs float32
    assert made.count(ours.conv.default) == 2  # the shortcut, and the block's result


def test_pooling_stays_int8() -> None:
    made = detector()
    made.before("lower_images")
    assert [n.meta["val"].dtype for n in made.graph.graph.nodes if n.target is ours.max_pool.default] == [
        torch.uint8,
        torch.uint8,
        torch.float32,  # the result
    ]


def test_averages_stay_int8() -> None:
    """Modules read uint8, functions float32; both write uint8 where only a quantization reads them, also from behind views."""
    made = averages()
    made.before("lower_images")
    kinds = [
        tuple(n.args[0].meta["val"].dtype if i else n.meta["val"].dtype for i in (1, 0))
        for n in made.graph.graph.nodes
        if n.target in (ours.avg_pool.default, ours.avg_pool_quantized.default)
    ]
    assert kinds == [
        (torch.uint8, torch.uint8),
        (torch.float32, torch.float32),  # a residual path reads it too
        (torch.uint8, torch.uint8),
        (torch.float32, torch.uint8),
    ]
    assert made.count(ours.quantize.default) <= 3  # of the block's input, of the sum and of the float pooling


@pytest.mark.parametrize("static", [True, False])
def test_averages_need_no_torch(static: bool) -> None:
    made = averages(static)
    compiled(made)
    left = {str(n.target) for n in made.graph.graph.nodes if n.op == "call_function"}
    assert not [name for name in left if "pool" in name or "mean" in name]


def test_a_pooling_alone_equals_its_module_to_the_bit() -> None:
    pools = {"p": average(kernel_size=(3, 2), stride=2, padding=1, ceil_mode=True), "q": average()}
    made = Case(lambda m, x: (m.p(m.a(x)), m.q(m.a(x))), image(), a=conv(8, 33), **pools)
    graph = pipeline.no_grad_compile(made.graph, made.inputs, check=True)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(graph(*made.inputs), made.expected, strict=True))


@pytest.mark.parametrize(
    "pool",
    [
        lambda y: F.avg_pool2d(y, 2, divisor_override=3),
        lambda y: F.avg_pool2d(y, 2, 3, ceil_mode=True),
        lambda y: F.adaptive_avg_pool2d(y, 3),
        lambda y: y.mean((1, 2)),
        lambda y: F.avg_pool2d(y.flip(1), 2),
    ],
)
def test_an_average_that_is_none_of_ours_stays(pool: Any) -> None:
    made = Case(lambda m, x: pool(m.a(x)), image(), a=conv(8, 6))
    assert made.apply("average_pools") == 0


@pytest.mark.parametrize("size", [(9, 7), (10, 8), (8, 12)])
def test_max_pooling_with_ceil_mode_becomes_one_of_ours(size: tuple[int, int]) -> None:
    made = Case(
        lambda m, x: m.b(F.max_pool2d(m.a(x), 3, 2, ceil_mode=True)), image(8, *size), a=conv(8, 6), b=conv(6, 5, 1)
    )
    assert len(compiled(made)) == 1


def test_a_pooled_value_with_two_readers_is_pooled_as_floats() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.max_pool2d(m.c(x), 2)
        return m.d(y) + y

    made = Case(forward, image(), c=conv(8, 8), d=conv(8, 8, 1))
    assert len(compiled(made)) == 1


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.SiLU(), nn.LeakyReLU(0.2), nn.Hardswish(), nn.GELU(), nn.Tanh()])
def test_activations_go_into_the_convolution(activation: nn.Module) -> None:
    made = Case(lambda m, x: activation(m.c(x)), image(), c=conv(8, 6))
    made.before("fuse_conv")
    assert made.apply("fuse_conv") == 1
    torch.testing.assert_close(made.run()[0], made.expected[0], rtol=1e-4, atol=1e-4)


def test_two_slopes_do_not_share_a_convolution() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return F.leaky_relu(F.leaky_relu(m.c(x), 0.1) + x, 0.3)

    made = Case(forward, image(), c=conv(8, 8))
    compiled(made)
    assert made.count(aten.leaky_relu.default) == 1


def test_one_program_for_each_size_and_not_without_end() -> None:
    made = detector()
    (call,) = compiled(made)
    with torch.no_grad():
        for height in range(8, 30):
            made.graph(torch.randn(1, 8, height, 9))
    assert len(call.built) == 16
