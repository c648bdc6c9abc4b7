"""The list of operators and arguments from which the kernel tests are made: sizes around tile edges, extremes, every variant.

A case is made anew by each `make()`, from a seed of its own, so that tests cannot spoil each other's tensors.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimum_int8 import kernels, numerics
from tests.operators import cases_attention, cases_conv, cases_decoder, cases_recurrent, cases_sum

WIDTHS = (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97)
SHAPES = (
    # rows, K, N
    (1, 1, 1), (1, 16, 2), (15, 63, 31), (16, 64, 32), (17, 65, 33), (31, 97, 97), (32, 128, 64), (33, 31, 15),
    (63, 33, 17), (64, 32, 16), (65, 1, 65), (97, 200, 1), (1, 768, 63), (350, 3072, 3),
)  # fmt: skip
SPECIAL = (0.0, -0.0, 1e-45, -1e-40, 0.5, -0.5, 1.5, 2.5, 4.5, -4.5, 20.0, -20.0, 88.0, -88.0, 1e4, -1e4, 1e30, -1e30)
INFINITE = (float("inf"), -float("inf"), float("nan"), 3.4e38, -3.4e38)


@dataclass(frozen=True)
class Case:
    """Arguments of `torch.ops.optimum_int8.<op>`."""

    op: str
    name: str
    make: Callable[[], tuple[Any, ...]]

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


def static_grid(low: float = -4.0, high: float = 7.0) -> tuple[Tensor, Tensor]:
    scale, zero_point = numerics.choose_affine_qparams(low, high)
    return torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)


def weight_arguments(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, scale = numerics.quantize_weight(weight)
    return kernels.pack(q), kernels.row_sums(q), scale


def input_arguments(x: Tensor, dynamic: bool) -> tuple[Tensor, Tensor, Tensor]:
    return numerics.quantize_rows(x) if dynamic else (numerics.quantize_affine(x, *static_grid()), *static_grid())


def linear_arguments(
    rows: int, k: int, n: int, dynamic: bool, bias: bool = True, activation: str = "none"
) -> tuple[Any, ...]:
    x = torch.randn(rows, k) * 3
    x[rows // 2] = 0.0
    b = torch.randn(n) if bias else None
    return *input_arguments(x, dynamic), *weight_arguments(torch.randn(n, k)), b, activation


def _linear() -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    for dynamic in (False, True):
        kind = "dynamic" if dynamic else "static"
        for shape in SHAPES:
            yield f"{kind}-{shape}", lambda s=shape, d=dynamic: linear_arguments(*s, d)
        yield f"{kind}-no_bias", lambda d=dynamic: linear_arguments(17, 65, 33, d, bias=False)
        for activation in kernels.ACTIVATIONS:
            yield f"{kind}-{activation}", lambda a=activation, d=dynamic: linear_arguments(33, 65, 47, d, activation=a)
            yield f"{kind}-{activation}-special", lambda a=activation, d=dynamic: _special_biases(a, d)
    for value in (0, 255):
        for weight in (-128, -127, 127):
            yield f"all_{value}_by_{weight}", lambda v=value, w=weight: _extreme(v, w)


def _special_biases(activation: str, dynamic: bool) -> tuple[Any, ...]:
    bias = torch.tensor(SPECIAL + INFINITE)
    if activation == "tanh":
        bias = bias.nan_to_num()  # of NaN: see test_operators.py
    return *linear_arguments(1, 1, len(bias), dynamic)[:-2], bias, activation


def _extreme(value: int, weight: int) -> tuple[Any, ...]:
    """The largest sums there are, at the largest K and with the zero point that moves them furthest."""
    k = numerics.MAX_REDUCTION
    x, zero_point = torch.full((2, k), value, dtype=torch.uint8), torch.tensor(255 - value, dtype=torch.int32)
    w = torch.full((2, k), weight, dtype=torch.int8)
    return x, torch.tensor(0.5), zero_point, kernels.pack(w), kernels.row_sums(w), torch.ones(2), None, "none"


def _linear_quantized() -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    for i, (name, make) in enumerate(_linear()):
        if i % 2:
            yield name, lambda m=make: (*m(), *static_grid(-3.0, 9.0))
        else:
            yield f"{name}-columns", lambda m=make: _with_column_grid(m())


def _with_column_grid(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return *args, torch.rand(args[5].shape[0]) + 0.01, torch.tensor(128, dtype=torch.int32)


def rows_of_all_kinds(rows: int, width: int) -> Tensor:
    """Random rows, among them all-zero, constant, one-sided, tiny and huge ones."""
    x = torch.randn(max(rows, 8), width) * 3
    x[1], x[2], x[3], x[4] = 0.0, 2.5, x[3].abs(), -x[4].abs()
    x[5], x[6] = x[5] * 1e-38, x[6] * 1e30
    return x


def _quantize() -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    for width in WIDTHS:
        yield f"{width}", lambda w=width: (rows_of_all_kinds(9, w), *static_grid())
    for zero_point in (0, 128, 255):
        grid = torch.tensor(0.1), torch.tensor(zero_point, dtype=torch.int32)
        yield f"special-{zero_point}", lambda g=grid: (torch.tensor(SPECIAL + INFINITE), *g)
    yield "half_ties", lambda: (torch.arange(-600, 600) / 2.0, torch.tensor(1.0), torch.tensor(7, dtype=torch.int32))
    yield "bfloat16", lambda: (rows_of_all_kinds(9, 33).to(torch.bfloat16), *static_grid())
    yield "strided", lambda: (torch.randn(5, 40, 3).transpose(1, 2)[:, :, ::2], *static_grid())
    yield "empty", lambda: (torch.randn(0, 16), *static_grid())


def _rows(*more: Any) -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    for width in WIDTHS:
        yield f"{width}", lambda w=width: (rows_of_all_kinds(33, w), *more)
    yield "leading_axes", lambda: (torch.randn(2, 3, 5, 48), *more)


def _groups() -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    for groups in (1, 3):
        for width in (1, 15, 16, 17, 64):
            yield f"{groups}x{width}", lambda g=groups, w=width: (rows_of_all_kinds(17, g * w), g)


def _norm(more: Callable[[], tuple[Any, ...]] = tuple) -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    for kind in ("none", "layer_norm", "rms_norm"):
        for width in WIDTHS:
            yield f"{kind}-{width}", lambda k=kind, w=width: (*norm_arguments(w, k), *more())
        for residual in (False, True):
            for weight, bias in ((False, False), (True, False), (True, True), (False, True)):
                if kind == "rms_norm" and bias:
                    continue
                name = f"{kind}-{'residual' * residual}-{'weight' * weight}-{'bias' * bias}"
                yield name, lambda k=kind, r=residual, w=weight, b=bias: (*norm_arguments(47, k, r, w, b), *more())


def norm_arguments(
    width: int, kind: str, residual: bool = True, weight: bool = True, bias: bool = True
) -> tuple[Any, ...]:
    x = rows_of_all_kinds(33, width)
    x[6] *= 1e-20  # its squares stay finite
    other = torch.randn(x.shape) if residual else None
    has_bias = bias and kind != "rms_norm"
    scale, shift = (torch.randn(width) if wanted else None for wanted in (weight, has_bias))
    return x, other, scale, shift, kind, 1e-5


def _embedding() -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    for width in WIDTHS:
        yield f"{width}", lambda w=width: (torch.randint(0, 40, (3, 7)), *numerics.quantize_weight(torch.randn(40, w)))
    table = numerics.quantize_weight(torch.randn(5, 48))
    yield "int32_ids", lambda: (torch.tensor([[4, 0], [3, 3]], dtype=torch.int32), *table)
    yield "one_row", lambda: (torch.zeros(1, dtype=torch.int64), table[0][:1], table[1][:1])
    yield "stored_shape", lambda: (torch.arange(5), table[0].unsqueeze(-1), table[1])
    yield "strided_ids", lambda: (torch.arange(4).repeat(3, 1).T, *table)


def _embedding_add() -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    for width in WIDTHS:
        yield f"{width}", lambda w=width: _added((3, 7), w)
    yield "for_all_the_batch", lambda: _added((1, 7), 33)
    yield "without_batch", lambda: _added((7,), 33)


def _added(ids: tuple[int, ...], width: int) -> tuple[Any, ...]:
    return torch.randint(0, 9, ids), *numerics.quantize_weight(torch.randn(9, width)), torch.randn(3, 7, width)


_BY_OP: dict[str, Callable[[], Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]]] = {
    "quantize": _quantize,
    "quantize_rows": _rows,
    "quantize_groups": _groups,
    "linear": _linear,
    "linear_quantized": _linear_quantized,
    "norm": _norm,
    "norm_quantized": lambda: _norm(static_grid),
    "norm_quantized_rows": _norm,
    "embedding": _embedding,
    "embedding_add": _embedding_add,
    "embedding_bag": cases_recurrent.bags,
    "attention": cases_attention.attention,
    "matmul": cases_attention.matmul,
    "scores": cases_attention.scores,
    "attention_rows": cases_attention.attention_rows,
    "attention_floats": cases_attention.attention_floats,
    "attention_appended": cases_attention.attention_appended,
    "float_attention_appended": cases_attention.float_attention_appended,
    "take_heads": cases_decoder.take_heads,
    "attention_rows_quantized": lambda: cases_attention.attention_rows(static_grid(-2.0, 2.0)),
    "float_attention": cases_attention.float_attention,
    "float_attention_rows": cases_attention.float_attention_rows,
    "float_attention_rows_quantized": lambda: cases_attention.float_attention_rows(static_grid(-2.0, 2.0)),
    "gated": cases_decoder.gated,
    "gated_quantized": lambda: cases_decoder.gated(*static_grid()),
    "gated_quantized_rows": cases_decoder.gated,
    "head_norm": cases_decoder.head_norm,
    "rotary": cases_decoder.rotary,
    "quantize_samples": cases_conv.samples,
    "conv": cases_conv.conv,
    "conv_quantized": cases_conv.conv_to_bytes,
    "conv_both": cases_conv.conv_to_bytes,
    "max_pool": cases_conv.max_pools,
    "avg_pool": cases_conv.avg_pools,
    "avg_pool_quantized": lambda: cases_conv.avg_pools(*cases_conv.grid(-1.0, 2.0)),
    "lstm": lambda: cases_recurrent.recurrent("lstm"),
    "gru": lambda: cases_recurrent.recurrent("gru"),
    "dequantize": cases_sum.dequantize,
    "add": cases_sum.add,
    "add_quantized": lambda: cases_sum.add(*cases_sum.RESULT),
    "cat_quantized": lambda: cases_sum.listed(cases_sum.cat()),
}


def _seeded(name: str, make: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
    def seeded() -> tuple[Any, ...]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(name.encode()))
            return make()

    return seeded


CASES = [Case(op, name, _seeded(f"{op}-{name}", make)) for op, cases in _BY_OP.items() for name, make in cases()]
"""Every operator with every kind of argument. test_operators.py fails when an operator has none."""
