"""What each pass must rewrite, and what it must leave alone. Each case is checked to compute the same afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8.errors import KernelError
from optimum_int8.fx import agree
from optimum_int8.kernels import library
from optimum_int8.nn import Bfloat16Attention, Int8Attention, Int8Embedding
from tests.passes.graphs import (
    WIDTH,
    Case,
    Float32Attention,
    aten,
    attention,
    embeddings,
    feed_forward,
    linear,
    norm,
    ours,
    same,
)

pytestmark = pytest.mark.skipif(library() is None, reason="without the native library graphs are not rewritten")
F = nn.functional


# -- drop_noops ----------------------------------------------------------------------------------------------------------


def test_drops_what_does_nothing() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.dropout(m.a(x), 0.5, False).contiguous().to(torch.float32)
        return x[:].detach()

    case = Case(forward, a=linear())
    assert case.apply("drop_noops") >= 3
    assert [str(n.target) for n in case.graph.graph.nodes if n.op == "call_function"] == [
        "optimum_int8.quantize.default",
        "optimum_int8.linear.default",
    ]
    assert same(case)


def test_keeps_casts_and_cuts_that_do_something() -> None:
    case = Case(lambda m, x: m.a(x).to(torch.float64)[:, 1:], a=linear())
    case.apply("drop_noops")
    assert case.run()[0].dtype == torch.float64
    assert case.count(aten.slice.Tensor) == 1
    assert same(case)


# -- share_quantization --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [True, False])
def test_one_quantization_of_a_value_for_all_consumers(static: bool) -> None:
    case = Case(lambda m, x: (m.a(x), m.b(x)), a=linear(static=static), b=linear(WIDTH, 32, static=static))
    case.before("share_quantization")
    assert case.apply("share_quantization") == 1
    assert case.count(ours.quantize.default) + case.count(ours.quantize_rows.default) == 1
    assert same(case)


def test_other_grids_and_other_values_are_quantized_for_themselves() -> None:
    case = Case(
        lambda m, x: (m.a(x), m.b(x), m.c(x + 1)),
        a=linear(high=3.0),
        b=linear(high=3.1),  # another grid
        c=linear(high=3.0),  # another value
    )
    case.before("share_quantization")
    assert case.apply("share_quantization") == 0
    assert case.count(ours.quantize.default) == 3
    assert same(case)


# -- merge_projections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("biases", [(True, True, True), (False, False, False), (True, False, True)])
def test_merges_linears_that_read_one_value(static: bool, biases: tuple[bool, ...]) -> None:
    sizes = (32, 64, 96)
    parts = {n: linear(WIDTH, size, static=static, bias=b) for n, size, b in zip("abc", sizes, biases, strict=True)}
    case = Case(lambda m, x: (m.a(x), m.b(x), m.c(x)), **parts)
    case.before("merge_projections")
    assert case.apply("merge_projections") == 1
    assert case.count(ours.linear.default) == 1
    assert same(case)


def test_widths_that_do_not_fill_panels_stay_alone() -> None:
    case = Case(lambda m, x: (m.a(x), m.b(x), m.c(x)), a=linear(), b=linear(WIDTH, 33), c=linear(WIDTH, 31))
    case.before("merge_projections")
    assert case.apply("merge_projections") == 0
    case = Case(lambda m, x: (m.a(x), m.b(x), m.c(x)), a=linear(), b=linear(WIDTH, 33), c=linear(WIDTH, 32))
    case.before("merge_projections")
    assert case.apply("merge_projections") == 1
    assert case.count(ours.linear.default) == 2
    assert same(case)


def test_different_scales_do_not_merge() -> None:
    case = Case(lambda m, x: (m.a(x), m.b(x)), a=linear(high=3.0), b=linear(high=2.0))
    case.before("merge_projections")
    assert case.apply("merge_projections") == 0
    assert same(case)


def test_a_module_called_twice_on_one_value_merges_with_itself_or_not_but_stays_right() -> None:
    case = Case(lambda m, x: (m.a(x), m.a(x) * 2, m.a(x + 1)), a=linear())
    case.before("merge_projections")
    case.apply("merge_projections")
    assert same(case)


# -- fuse_activation -----------------------------------------------------------------------------------------------------


def new_gelu(x: Tensor) -> Tensor:
    """As Transformers' `NewGELUActivation` writes it."""
    return 0.5 * x * (1.0 + torch.tanh((2.0 / torch.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3.0))))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.relu, "relu"),
        (F.gelu, "gelu"),
        (lambda x: F.gelu(x, approximate="tanh"), "gelu_tanh"),
        (F.silu, "silu"),
        (torch.tanh, "tanh"),
        (new_gelu, "gelu_tanh"),
    ],
)
def test_folds_an_activation_into_its_linear(function: Callable[[Tensor], Tensor], name: str) -> None:
    case = Case(lambda m, x: function(m.a(x)), a=linear())
    case.before("fuse_activation")
    assert case.apply("fuse_activation") == 1
    calls = [n for n in case.graph.graph.nodes if n.op == "call_function" and "sym_size" not in str(n.target)]
    assert [n.target for n in calls] == [ours.quantize.default, ours.linear.default]
    assert calls[1].args[7] == name
    assert (case.run()[0] - case.expected[0]).abs().max() < 5e-5


@pytest.mark.parametrize(
    "function",
    [
        lambda y: (torch.relu(y), y),  # the value before is needed
        lambda y: torch.relu(y) * y,
        lambda y: torch.sigmoid(y),
        lambda y: torch.relu(y + 1),
        lambda y: 0.5 * y * (1.0 + torch.tanh(0.7 * (y + 0.044715 * torch.pow(y, 3.0)))),  # another formula
        lambda y: 0.5 * y * (1.0 + torch.tanh((2.0 / torch.pi) ** 0.5 * (y + 0.05 * torch.pow(y, 3.0)))),
    ],
)
def test_other_uses_of_a_linear_keep_it_plain(function: Callable[[Tensor], Any]) -> None:
    case = Case(lambda m, x: function(m.a(x)), a=linear())
    case.before("fuse_activation")
    assert case.apply("fuse_activation") == 0
    assert same(case)


def test_two_activations_fold_once() -> None:
    case = Case(lambda m, x: torch.tanh(torch.relu(m.a(x))), a=linear())
    case.before("fuse_activation")
    case.apply("fuse_activation")
    assert case.count(aten.tanh.default) == 1
    assert same(case, 1e-6)


# -- fuse_norm -----------------------------------------------------------------------------------------------------------


def test_folds_the_residual_into_the_norm() -> None:
    case = Case(lambda m, x: m.norm(m.a(x) + x), a=linear(), norm=norm())
    case.before("fuse_norm")
    assert case.apply("fuse_norm") == 1
    assert (case.count(ours.norm.default), case.count(aten.add.Tensor)) == (1, 0)
    assert (case.run()[0] - case.expected[0]).abs().max() < 1e-5


def test_a_sum_that_is_read_elsewhere_is_kept() -> None:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        total = m.a(x) + x
        return m.norm(total), total

    case = Case(forward, a=linear(), norm=norm())
    case.before("fuse_norm")
    case.apply("fuse_norm")
    kinds = sorted(n.args[4] for n in case.graph.graph.nodes if n.target is ours.norm.default)
    assert kinds == ["layer_norm", "none"]  # the addition as an operator of its own
    normed = next(n for n in case.graph.graph.nodes if n.target is ours.norm.default and n.args[4] == "layer_norm")
    assert normed.args[1] is None  # and not a second time in the norm
    assert torch.equal(case.run()[1], case.expected[1])
    assert (case.run()[0] - case.expected[0]).abs().max() < 1e-5


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.norm(x + x[:1]),  # broadcasts
        lambda m, x: m.norm(torch.add(m.a(x), x, alpha=2)),
        lambda m, x: m.norm(m.a(x) + 1.0),
        lambda m, x: m.norm(m.a(x).double() + x).float(),
    ],
)
def test_sums_of_another_kind_stay_outside_of_the_norm(function: Callable[..., Any]) -> None:
    case = Case(function, a=linear(), norm=norm().double() if "double" in function.__code__.co_names else norm())
    case.before("fuse_norm")
    case.apply("fuse_norm")
    assert case.count(aten.add.Tensor) == 1
    assert agree(case.run(), case.expected, 1e-5)


def test_a_norm_over_several_axes_is_left_alone() -> None:
    module = nn.LayerNorm((8, WIDTH)).requires_grad_(False)
    case = Case(lambda m, x: m.norm(m.a(x)), torch.randn(2, 5, 8, WIDTH), a=linear(), norm=module)
    case.before("fuse_norm")
    assert case.apply("fuse_norm") == 0
    assert same(case)


# -- float attention (fuse_cached_attention, quantize_in_producer, lower) ----------------------------------------------------


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("core", [Float32Attention, Bfloat16Attention])
def test_a_layer_with_float_attention_is_one_program(core: type[nn.Module], mask: bool, static: bool) -> None:
    case = attention(static, mask=mask, core=core())
    case.before("lower_rows")
    quantized = case.count(ours.float_attention_rows_quantized.default)
    assert (quantized, case.count(ours.float_attention_rows.default)) == ((1, 0) if static else (0, 1))
    assert case.apply("lower_rows") == 1
    assert [n.op for n in case.graph.graph.nodes if n.op.startswith("call")] == ["call_module"]
    assert same(case, 0.02)


@pytest.mark.parametrize("core", [Float32Attention, Bfloat16Attention])
def test_fused_float_attention_keeps_bits(core: type[nn.Module]) -> None:
    """Norms apart, whose sums torch adds in another order."""

    def forward(m: Any, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = (part(t).view(*t.shape[:-1], 4, -1).transpose(1, 2) for part, t in ((m.q, x), (m.k, y), (m.v, y)))
        return m.out(m.core(q, k, v, None, 0.3, False).reshape(*x.shape[:-1], -1))

    parts = {name: linear(low=-2.0 - i) for i, name in enumerate(("q", "k", "v", "out"))}
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(2, 5, WIDTH, generator=generator), torch.randn(2, 9, WIDTH, generator=generator)
    case = Case(forward, x, y, core=core(), **parts)
    case.before("lower_rows")
    assert case.apply("lower_rows") > 1, "keys of a length of their own are made by a program of their own"
    assert case.count(ours.float_attention_rows.default) + case.count(ours.linear.default) == 0
    assert same(case)


# -- fuse_attention ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("mask", [True, False])
def test_attention_runs_on_the_rows_of_the_projections(static: bool, mask: bool) -> None:
    case = attention(static, mask=mask)
    case.before("fuse_attention")
    before = case.run()
    assert case.apply("fuse_attention") == 1
    assert (case.count(ours.attention.default), case.count(aten.transpose.int)) == (0, 0)
    assert agree(case.run(), before)


@pytest.mark.parametrize("case", [{"width": 51, "heads": 3}, {"shared": False}])
def test_projections_that_did_not_merge_keep_the_plain_core(case: dict[str, Any]) -> None:
    made = attention(**case)
    made.before("fuse_attention")
    before = made.run()
    assert made.apply("fuse_attention") == 0
    assert agree(made.run(), before)


def test_queries_that_are_read_elsewhere_keep_the_plain_core() -> None:
    parts = {name: linear() for name in "qkv"}

    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        split = [part(x) for part in (m.q, m.k, m.v)]
        q, k, v = (y.view(*x.shape[:-1], 2, -1).transpose(1, 2) for y in split)
        return m.core(q, k, v, None, 0.3, False).reshape(*x.shape[:-1], -1), split[0]

    case = Case(forward, core=Int8Attention.from_ranges(None), **parts)
    case.before("fuse_attention")
    assert case.apply("fuse_attention") == 0
    assert same(case)


# -- quantize_in_producer ------------------------------------------------------------------------------------------------


def test_values_stay_int8_between_consecutive_linears() -> None:
    case = Case(lambda m, x: m.b(torch.relu(m.a(x))), a=linear(), b=linear(low=-0.1))
    case.before("quantize_in_producer")
    before = case.run()
    assert case.apply("quantize_in_producer") == 1
    assert (case.count(ours.linear_quantized.default), case.count(ours.quantize.default)) == (1, 1)
    assert agree(case.run(), before)


def test_a_value_used_twice_stays_float() -> None:
    case = Case(lambda m, x: (lambda y: (m.b(y), y))(m.a(x)), a=linear(), b=linear(low=-2.0))
    case.before("quantize_in_producer")
    assert case.apply("quantize_in_producer") == 0
    assert same(case)


def test_two_grids_on_one_value_stay_two_quantizations() -> None:
    case = Case(lambda m, x: (lambda y: (m.b(y), m.c(y)))(m.a(x)), a=linear(), b=linear(high=2.0), c=linear(high=1.0))
    case.before("quantize_in_producer")
    assert case.apply("quantize_in_producer") == 0
    assert case.count(ours.quantize.default) == 3
    assert same(case)


@pytest.mark.parametrize("static", [True, False])
def test_a_norm_writes_both_for_the_residual(static: bool) -> None:
    case = Case(lambda m, x: (lambda y: m.a(y) + y)(m.norm(x)), a=linear(static=static), norm=norm())
    case.before("quantize_in_producer")
    before = case.run()
    assert case.apply("quantize_in_producer") == 1
    target = ours.norm_quantized.default if static else ours.norm_quantized_rows.default
    assert (case.count(target), case.count(ours.quantize.default), case.count(ours.quantize_rows.default)) == (1, 0, 0)
    assert agree(case.run(), before)


def test_a_norm_read_on_two_grids_is_quantized_for_each() -> None:
    case = Case(
        lambda m, x: (lambda y: (m.a(y), m.b(y)))(m.norm(x)), a=linear(high=3.0), b=linear(high=2.0), norm=norm()
    )
    case.before("quantize_in_producer")
    before = case.run()
    case.apply("quantize_in_producer")
    assert agree(case.run(), before)
    assert case.count(ours.norm_quantized.default) + case.count(ours.quantize.default) == 2


# -- lower ---------------------------------------------------------------------------------------------------------------


def test_what_is_not_ours_stays_between_programs() -> None:
    case = Case(lambda m, x: m.b(torch.cumsum(m.a(x), 1)), a=linear(), b=linear(low=-9.0, high=9.0))
    case.before("lower_rows")
    before = case.run()
    assert case.apply("lower_rows") == 2
    assert case.count(aten.cumsum.default) == 1
    assert agree(case.run(), before)


def test_other_leading_axes_are_another_program() -> None:
    case = Case(lambda m, x: m.b(m.a(x)[:, 0]), a=linear(), b=linear(low=-2.0))
    case.before("lower_rows")
    before = case.run()
    assert case.apply("lower_rows") == 2
    assert agree(case.run(), before)


def test_results_inside_and_at_the_end_of_a_program_are_returned() -> None:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = m.norm(m.a(x) + x)
        z = torch.relu(m.b(y))
        return y, z, m.c(z)

    case = Case(forward, a=linear(), b=linear(high=2.0), c=linear(low=-0.1), norm=norm())
    case.before("lower_rows")
    before = case.run()
    assert case.apply("lower_rows") == 1
    assert agree(case.run(), before)


def test_one_value_used_by_two_programs() -> None:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.a(x)
        z = torch.cumsum(y, 1)
        return m.b(z) + y, y

    case = Case(forward, a=linear(), b=linear(low=-9.0, high=9.0))
    case.before("lower_rows")
    before = case.run()
    case.apply("lower_rows")
    assert agree(case.run(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_values_of_another_dtype_are_cast_on_the_way_into_a_program(dtype: torch.dtype) -> None:
    """A program reads float32, whatever the memory holds."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.after(m.b(torch.relu(m.a(m.norm(x)))) + x)

    case = Case(
        forward,
        torch.randn(2, 5, WIDTH).to(dtype),
        a=linear(),
        b=linear(),
        norm=norm().to(dtype),
        after=norm().to(dtype),
    )
    case.before("lower_rows")
    before = case.run()
    assert case.apply("lower_rows") >= 1
    after = case.run()
    assert after[0].dtype == case.expected[0].dtype == dtype
    assert agree(after, before)
    assert agree(after, case.expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_ids_of_any_width(dtype: torch.dtype) -> None:
    ids = torch.tensor([[1, 8, 0], [3, 3, 5]], dtype=dtype)
    table = Int8Embedding.from_float(nn.Embedding(9, WIDTH))
    case = Case(lambda m, x: m.a(m.table(x)), ids, table=table, a=linear())
    case.before("lower_rows")
    assert case.apply("lower_rows") == 1
    assert same(case)


def test_an_id_outside_of_the_table_is_an_error_in_a_program_too() -> None:
    table = Int8Embedding.from_float(nn.Embedding(9, WIDTH))
    case = Case(lambda m, x: m.a(m.table(x)), torch.tensor([[1, 2, 3]]), table=table, a=linear())
    case.before("lower_rows")
    case.apply("lower_rows")
    for wrong in (9, -1):
        with pytest.raises(IndexError):
            case.graph(torch.tensor([[1, wrong, 3]]))


# -- fuse_embedding ------------------------------------------------------------------------------------------------------


def test_sums_of_embeddings_become_one_chain() -> None:
    case = embeddings()
    case.before("fuse_embedding")
    assert case.apply("fuse_embedding") == 2
    assert (
        case.count(ours.embedding_add.default),
        case.count(ours.embedding.default),
        case.count(aten.add.Tensor),
    ) == (2, 1, 0)
    assert same(case)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: (lambda e: (e + m.a(e), e))(m.table(x)),  # the embedding is needed itself
        lambda m, x: torch.add(m.a(m.table(x)), m.table(x), alpha=2),
        lambda m, x: m.table(x) + m.a(m.table(x))[:, :1],  # the embedding is the larger one
    ],
)
def test_other_sums_with_an_embedding_are_left_alone(function: Callable[..., Any]) -> None:
    table = Int8Embedding.from_float(nn.Embedding(9, WIDTH))
    case = Case(function, torch.tensor([[1, 2, 3], [4, 5, 6]]), table=table, a=linear())
    case.before("fuse_embedding")
    assert case.apply("fuse_embedding") == 0
    assert same(case)


def test_a_feed_forward_holds_no_float_round_trip_between_its_linears() -> None:
    case = feed_forward()
    case.before("lower_rows")
    targets = [n.target for n in case.graph.graph.nodes if n.op == "call_function" and "sym_size" not in str(n.target)]
    assert targets == [ours.quantize.default, ours.linear_quantized.default, ours.linear.default, ours.norm.default]


@pytest.mark.skipif(library() is None, reason="without the native library nothing becomes a program")
@pytest.mark.parametrize("sequences", [0, 1, 3])
def test_keys_of_other_sequences_than_the_queries_are_refused(sequences: int) -> None:
    """The kernels would read beyond them: two sequences of queries need two of keys."""

    def forward(m: Any, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = (t.view(*t.shape[:-1], 4, -1).transpose(1, 2) for t in (x, y, y))
        return m.core(q, k, v, None, 0.3, False).reshape(*x.shape[:-1], -1)

    x, y = torch.randn(2, 5, WIDTH), torch.randn(2, 9, WIDTH)
    case = Case(forward, x, y, core=Float32Attention())
    case.before("lower_rows")
    assert case.apply("lower_rows") == 1
    case.graph.recompile()
    with pytest.raises(KernelError, match=f"2 sequences of queries and {sequences} of keys"):
        case.graph(x, torch.randn(sequences, 9, WIDTH))
