"""Rewrites of decoder layers: what each must find, and what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8.kernels import library
from optimum_int8.lowering import lower_rows
from optimum_int8.passes import pipeline
from tests.passes.decoders import (
    HEAD,
    HEADS,
    RMSNorm,
    angles,
    decoder,
    past_of,
    rotate_half,
    rotate_neighbours,
    turn,
)
from tests.passes.graphs import WIDTH, Case, aten, linear, norm, ours, same

pytestmark = pytest.mark.skipif(library() is None, reason="without the native library graphs are not rewritten")
F = nn.functional


# -- a layer ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"plus_one": True, "activation": F.gelu},
        {"rotate": rotate_neighbours, "turned": HEAD // 2},
        {"head_norms": False, "activation": F.relu},
        {"cached": False},
    ],
)
def test_a_decoder_layer_becomes_one_program(static: bool, given: dict[str, Any]) -> None:
    case = decoder(static, **given)
    compiled = pipeline.no_grad_compile(case.graph, case.inputs, check=True)
    assert len([node for node in compiled.graph.nodes if node.op == "call_module"]) == 1
    assert same(case, 0.02)


# -- fuse_rotary -----------------------------------------------------------------------------------------------------------


def rotary(x: Tensor, cos: Tensor, sin: Tensor, rotate: Callable[[Tensor], Tensor]) -> Tensor:
    heads = x.view(*x.shape[:2], HEADS, HEAD).transpose(1, 2)
    return turn(heads, cos, sin, rotate)


@pytest.mark.parametrize("turned", [HEAD, HEAD // 2, 6])
@pytest.mark.parametrize("rotate", [rotate_half, rotate_neighbours])
def test_finds_rotary_embeddings(rotate: Callable[[Tensor], Tensor], turned: int) -> None:
    case = Case(lambda m, x: rotary(m.q(x), *angles(x, turned), rotate), q=linear())
    assert case.apply("drop_noops", "fuse_rotary") == 1
    assert case.count(ours.rotary.default) == 1 and case.count(aten.neg.default) == 0
    assert same(case)


def test_finds_a_rotary_embedding_of_heads_behind_lengths() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        cos, sin = (angle.transpose(1, 2) for angle in angles(x))
        return turn(m.q(x).view(*x.shape[:2], HEADS, HEAD), cos, sin)

    case = Case(forward, q=linear())
    assert case.apply("drop_noops", "fuse_rotary") == 1
    assert same(case)


@pytest.mark.parametrize("rotate", [rotate_half, rotate_neighbours])
def test_angles_of_one_sequence_serve_all_of_the_batch(rotate: Callable[[Tensor], Tensor]) -> None:
    def forward(m: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return m.norm(rotary(m.q(x), cos.unsqueeze(1), sin.unsqueeze(1), rotate).transpose(1, 2).flatten(2))

    case = Case(forward, torch.randn(3, 5, WIDTH), *torch.randn(2, 1, 5, HEAD).unbind(), q=linear(), norm=norm())
    assert case.apply("drop_noops", "fuse_norm", "fuse_rotary") == 1
    assert lower_rows(case.graph) == 2  # the norm's rows are a view of the heads
    case.graph.recompile()
    assert same(case, 1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, cos, sin: x * cos - rotate_half(x) * sin,
        lambda x, cos, sin: x * cos + rotate_half(x) * sin * 2.0,
        lambda x, cos, sin: x * cos + rotate_half(cos) * sin,
        lambda x, cos, sin: x * cos + torch.cat((x[..., HEAD // 2 :], -x[..., : HEAD // 2]), -1) * sin,
        lambda x, cos, sin: x * cos + torch.cat((-x[..., 10:], x[..., :10]), -1) * sin,
        lambda x, cos, sin: x * cos + torch.stack((x[..., 1::2], x[..., ::2]), -1).flatten(-2) * sin,
        lambda x, cos, sin: x * cos + torch.stack((-x[..., ::2], x[..., 1::2]), -1).flatten(-2) * sin,
    ],
)
def test_leaves_other_sums_of_products(wrong: Callable[..., Tensor]) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return wrong(m.q(x).view(*x.shape[:2], HEADS, HEAD).transpose(1, 2), *angles(x))

    case = Case(forward, q=linear())
    assert case.apply("drop_noops", "fuse_rotary") == 0
    assert same(case)


def test_leaves_angles_that_differ_from_head_to_head() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        heads = m.q(x).view(*x.shape[:2], HEADS, HEAD).transpose(1, 2)
        return turn(heads, heads.cos(), heads.sin())

    case = Case(forward, q=linear())
    assert case.apply("drop_noops", "fuse_rotary") == 0


# -- fuse_gated --------------------------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("packed", ["two", "chunk", "slice"])
def test_finds_gated_activations(activation: str, packed: str) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        both = m.both(x)
        if packed == "two":
            gate, up = both, m.up(x)
        elif packed == "chunk":
            gate, up = both.chunk(2, -1)
        else:
            gate, up = both[..., :48], both[..., 48:]
        return up * ACTIVATIONS[activation](gate)

    case = Case(forward, both=linear(WIDTH, 96), up=linear(WIDTH, 96, -2.0))
    assert case.apply("drop_noops", "fuse_gated") == 1
    assert case.count(ours.gated.default) == 1 and case.count(aten.mul.Tensor) == 0
    assert same(case, 1e-4)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: F.silu(m.gate(x)) * x[..., :1],
        lambda m, x: F.silu(m.gate(x)) * x,
        lambda m, x: F.silu(m.gate(x)) * F.silu(m.gate(x)),
        lambda m, x: (F.silu(m.gate(x)) * 2.0) * m.up(x),
        lambda m, x: torch.sigmoid(m.gate(x)) * m.up(x),
    ],
)
def test_leaves_products_that_are_no_gates(forward: Callable[..., Tensor]) -> None:
    case = Case(forward, gate=linear(), up=linear(WIDTH, WIDTH, -2.0))
    assert case.apply("drop_noops", "fuse_gated") == 0
    assert same(case)


def test_an_activation_that_others_read_stays() -> None:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        gate = F.silu(m.gate(x))
        return gate * m.up(x), gate

    case = Case(forward, gate=linear(), up=linear(WIDTH, WIDTH, -2.0))
    assert case.apply("drop_noops", "fuse_gated") == 0
    assert same(case)


@pytest.mark.parametrize("static", [True, False])
def test_the_quantization_of_a_gate_moves_into_it(static: bool) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.down(F.silu(m.gate(x)) * m.up(x))

    parts = {name: linear(WIDTH, 96, static=static) for name in ("gate", "up")}
    case = Case(forward, down=linear(96, WIDTH, static=static), **parts)
    case.apply("drop_noops", "share_quantization", "merge_projections", "fuse_gated", "quantize_in_producer")
    assert case.count(ours.gated_quantized.default if static else ours.gated_quantized_rows.default) == 1
    assert same(case, 0.02)


# -- norms -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plus_one", [True, False])
@pytest.mark.parametrize("swapped", [True, False])
def test_finds_norms_of_heads(plus_one: bool, swapped: bool) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        heads = m.q(x).view(*x.shape[:2], HEADS, HEAD)
        return m.norm(heads.transpose(1, 2) if swapped else heads)

    case = Case(forward, q=linear(), norm=RMSNorm(HEAD, plus_one))
    assert case.apply("drop_noops", "fuse_head_norm") == 1
    assert case.count(ours.head_norm.default) == 1 and case.count(aten.rsqrt.default) == 0
    assert same(case, 1e-6)


def test_finds_a_norm_whose_weight_is_stored_less_one() -> None:
    case = Case(lambda m, x: m.norm(m.q(x)), q=linear(), norm=RMSNorm(WIDTH, plus_one=True))
    assert case.apply("drop_noops", "fuse_norm") == 1
    assert case.count(ours.norm.default) == 1 and case.count(aten.rsqrt.default) == 0
    assert same(case, 1e-6)


def test_leaves_a_weight_that_is_stored_less_two() -> None:
    class Other(RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (2.0 + self.weight)

    case = Case(lambda m, x: m.norm(m.q(x)), q=linear(), norm=Other(WIDTH))
    assert case.apply("drop_noops", "fuse_norm") == 0
    assert same(case)


# -- fuse_appended -----------------------------------------------------------------------------------------------------------


def test_keys_that_others_read_stay_concatenated() -> None:
    """More than the attention and the cache: a product of the keys is a result too."""
    from optimum_int8.nn import Int8Attention

    def forward(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        heads = [part(x).view(*x.shape[:2], -1, HEAD).transpose(1, 2) for part in (m.q, m.k, m.v)]
        k, v = (torch.cat(pair, -2) for pair in zip(past_of(x), heads[1:], strict=True))
        core = m.core(heads[0], k, v, None, 0.2, False)
        return m.out(core.reshape(*x.shape[:2], -1)), k * 2.0, v

    parts = {"q": linear(), "k": linear(WIDTH, HEAD), "v": linear(WIDTH, HEAD)}
    case = Case(forward, core=Int8Attention.from_ranges(None), out=linear(), **parts)
    case.before("fuse_appended")
    assert case.apply("fuse_appended") == 0
    assert same(case)


# -- rows ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [True, False])
def test_rows_keep_their_axes(static: bool) -> None:
    """As OPT's feed-forward, and one that other values are flattened for too."""

    def forward(m: Any, x: Tensor) -> Tensor:
        flat = x.reshape(-1, WIDTH)
        h = m.down(F.relu(m.up(m.norm(flat))))
        other = (x * 2.0).view(-1, WIDTH)
        return (flat + h + other).view(x.shape)

    case = Case(forward, norm=norm(), up=linear(WIDTH, 96, static=static), down=linear(96, WIDTH, static=static))
    assert case.apply("drop_noops", "drop_flattening") == 1
    assert case.count(aten.view.default) + case.count(aten.reshape.default) == 0
    assert same(case)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.q(x.reshape(-1, WIDTH)),
        lambda m, x: m.q(x.reshape(-1, WIDTH)).view(*x.shape) + m.q(x.reshape(-1, WIDTH)).sum(),
        lambda m, x: m.q(x.reshape(-1, WIDTH)).softmax(0).view(x.shape),
        lambda m, x: m.q(x.reshape(-1, WIDTH)).view(x.shape[1], x.shape[0], WIDTH),
    ],
)
def test_leaves_rows_that_stay_flat_or_meet(forward: Callable[..., Tensor]) -> None:
    case = Case(forward, q=linear())
    assert case.apply("drop_noops", "drop_flattening") == 0 and same(case)


def test_linears_with_activations_of_their_own_do_not_merge() -> None:
    """A layer whose feed-forward reads what its attention reads (GPT-J, Phi, Falcon)."""
    case = Case(lambda m, x: (F.gelu(m.up(x)), m.q(x), m.k(x)), up=linear(WIDTH, 96), q=linear(), k=linear())
    assert case.apply("drop_noops", "share_quantization", "merge_projections", "fuse_activation") == 1
    assert case.count(ours.linear.default) == 2 and case.count(aten.gelu.default) == 0 and same(case, 1e-4)


# -- scales ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "tolerance"), [(0.25, 0.0), (0.2, 1e-6), (3, 1e-6)])
@pytest.mark.parametrize("bias", [True, False])
def test_folds_a_number_into_the_linear(factor: float, tolerance: float, bias: bool) -> None:
    case = Case(lambda m, x: factor * m.q(x), q=linear(bias=bias))
    stored = dict(case.graph.named_buffers())
    before = {name: tensor.clone() for name, tensor in stored.items()}
    assert case.apply("drop_noops", "fold_scale") == 1 and case.count(aten.mul.Tensor) == 0
    assert same(case, tolerance)
    assert all(torch.equal(tensor, before[name]) for name, tensor in stored.items())  # those of the module


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.q(x) * -2.0,
        lambda m, x: m.q(x) * x[..., :1],
        lambda m, x: (lambda q: q * 2.0 + m.k(q))(m.q(x)),
        lambda m, x: F.relu(m.q(x)) * 2.0,
        lambda m, x: m.q(x) * float("inf"),
    ],
)
def test_leaves_other_products_of_a_linear(forward: Callable[..., Tensor]) -> None:
    case = Case(forward, q=linear(), k=linear(WIDTH, WIDTH, -2.0))
    assert case.apply("drop_noops", "fold_scale") == 0


def test_scaled_queries_and_plain_keys_are_one_linear() -> None:
    case = Case(lambda m, x: torch.cat((m.q(x) * 0.5, m.k(x)), -1), q=linear(), k=linear())
    assert case.apply("drop_noops", "share_quantization", "fold_scale", "merge_projections") == 1
    assert case.count(ours.linear.default) == 1 and same(case)
