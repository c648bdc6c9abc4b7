"""Rewrites of heads: attention that a model writes out, and linears that give queries, keys and values head by head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from optimum_int8.kernels import library
from optimum_int8.lowering import lower_rows
from optimum_int8.passes import pipeline
from tests.passes.decoders import HEAD, HEADS, repeat, written_out
from tests.passes.graphs import WIDTH, Case, aten, linear, ours, same

pytestmark = pytest.mark.skipif(library() is None, reason="without the native library graphs are not rewritten")
F = torch.nn.functional


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("given", [{}, {"softcap": 2.0}, {"returned": True}])
def test_attention_that_is_written_out_becomes_one_program(static: bool, given: dict[str, Any]) -> None:
    case = written_out(static, **given)
    for step in pipeline.REWRITES:
        case.apply(step.run.__name__)
    assert case.count(ours.float_attention_appended.default) == 1 and case.count(ours.take_heads.default) == 3
    assert case.count(aten.softmax.int) == ("returned" in given)
    assert lower_rows(case.graph) == 1
    case.graph.recompile()
    assert same(case, 0.02)


def _bias(m: Any, x: Tensor) -> Tensor:
    """As BLOOM adds ALiBi."""
    batch, length, _ = x.shape
    q, k, v = (h.reshape(batch * HEADS, -1, HEAD) for h in _heads(m, x))
    bias = x[..., :HEADS].transpose(1, 2).reshape(batch * HEADS, 1, length)
    scores = bias.baddbmm(q, k.transpose(-1, -2), beta=1.0, alpha=0.25).view(batch, HEADS, length, -1)
    weights = F.softmax(scores + x[:, :, :1].transpose(1, 2).unsqueeze(1), -1).view(batch * HEADS, length, -1)
    out = torch.bmm(weights, v).view(batch, HEADS, length, HEAD)
    return out.permute(0, 2, 1, 3).reshape(batch, length, WIDTH)


def _heads(m: Any, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(part(x).view(*x.shape[:2], -1, HEAD).transpose(1, 2) for part in (m.q, m.k, m.v))


def _attend(change: Callable[[Tensor], Tensor], times: int = 1) -> Callable[[Any, Tensor], Tensor]:
    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = _heads(m, x)
        q, k, v = q, repeat(k[:, ::times], times), repeat(v[:, ::times], times)
        weights = F.softmax(change(q @ k.transpose(-1, -2)), -1)
        return (weights @ v).transpose(1, 2).reshape(x.shape)

    return forward


ATTENTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "plain": _attend(lambda s: s),
    "scaled": _attend(lambda s: s * 0.25),
    "divided": _attend(lambda s: s / 4.0),
    "capped": _attend(lambda s: torch.tanh(s * 0.5 / 3.0) * 3.0),
    "shared": _attend(lambda s: s * 0.25, 2),
    "bias of each head": _bias,
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_finds_attention_that_is_written_out(name: str) -> None:
    case = Case(ATTENTIONS[name], q=linear(), k=linear(WIDTH, WIDTH, -2.0), v=linear(WIDTH, WIDTH, -1.0))
    assert case.apply("drop_noops", "fuse_written_attention") == 1
    assert case.count(ours.float_attention.default) == 1 and case.count(aten.softmax.int) == 0
    core = next(
        n for n in case.graph.graph.nodes if n.op == "call_function" and n.target is ours.float_attention.default
    )
    assert int(core.args[1].meta["val"].shape[1]) == (1 if name == "shared" else HEADS)
    assert same(case, 1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: torch.tanh(s / 3.0) * 2.0,
        lambda s: torch.tanh(s * 3.0) * 3.0,
        lambda s: (s + s[:, :, :, :1]) * 0.5,
        lambda s: s.clamp(max=3.0),
        lambda s: s + 1.0,
        lambda s: s * s,
        lambda s: torch.tanh(torch.tanh(s / 3.0) * 3.0 / 2.0) * 2.0,
    ],
)
def test_leaves_other_scores(change: Callable[[Tensor], Tensor]) -> None:
    case = Case(_attend(change), q=linear(), k=linear(WIDTH, WIDTH, -2.0), v=linear(WIDTH, WIDTH, -1.0))
    assert case.apply("drop_noops", "fuse_written_attention") == 0 and same(case)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.q(x).view(*x.shape[:2], HEADS, 3, HEAD)[..., 1, :].transpose(1, 2),
        lambda m, x: torch.cat([m.q(x).view(*x.shape[:2], HEADS, 3, HEAD).select(-2, i) for i in (2, 0, 1)], -1),
        lambda m, x: torch.cat(m.q(x).view(*x.shape[:2], HEADS, 3 * HEAD).chunk(3, -1), 1),
        lambda m, x: torch.cat(m.q(x).view(*x.shape[:2], HEADS, 3 * HEAD).transpose(1, 2).split(HEAD, -1), 2),
    ],
)
def test_takes_heads_apart(forward: Callable[..., Tensor]) -> None:
    case = Case(forward, q=linear(WIDTH, 3 * WIDTH))
    assert case.apply("drop_noops", "split_heads") in (1, 3) and case.count(ours.take_heads.default) in (1, 3)
    assert same(case)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.q(x).view(*x.shape[:2], HEADS, 3 * HEAD)[..., :HEAD],
        lambda m, x: torch.cat(m.q(x).view(*x.shape[:2], HEADS, 3 * HEAD).split([HEAD, 2 * HEAD], -1)[::-1], -1),
        lambda m, x: m.q(x).view(*x.shape[:2], HEADS, 3, HEAD).flip(3)[..., 0, :],
        lambda m, x: m.q(x).view(*x.shape[:2], HEADS, 3, HEAD)[..., 0],
        lambda m, x: m.q(x).view(*x.shape[:2], HEADS, 3, HEAD)[:, 0],
        lambda m, x: (lambda v: v[:, :, 0].sum(2) + v[:, :, :, 0].sum(2))(m.q(x).view(*x.shape[:2], 3, HEADS, HEAD)),
    ],
)
def test_leaves_other_views_of_heads(forward: Callable[..., Tensor]) -> None:
    case = Case(forward, q=linear(WIDTH, 3 * WIDTH))
    assert case.apply("drop_noops", "split_heads") == 0 and same(case)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: torch.cat(m.q(x).view(*x.shape[:2], 3, -1, HEAD).unbind(-3), -1),
        lambda m, x: torch.cat([m.q(x).view(*x.shape[:2], 3, -1, HEAD)[:, :, i] for i in (2, 0, 1)], 1),
        lambda m, x: torch.cat(m.q(x).view(*x.shape[:2], HEADS, 3, HEAD).unbind(3), -1),
    ],
)
def test_parts_of_all_heads_are_columns(forward: Callable[..., Tensor]) -> None:
    """As ModernBERT's; of heads that have their parts together they are not."""
    case = Case(forward, q=linear(WIDTH, 3 * WIDTH))
    assert case.apply("drop_noops", "split_heads") in (1, 3)
    assert case.count(aten.unbind.int) == 0 and same(case)


def test_gelu_as_bloom_writes_it() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.up(x)
        return h * 0.5 * (1.0 + torch.tanh(0.79788456 * h * (1 + 0.044715 * h * h)))

    case = Case(forward, up=linear(WIDTH, 96))
    assert case.apply("drop_noops", "fuse_activation") == 1 and case.count(aten.tanh.default) == 0 and same(case, 1e-4)
