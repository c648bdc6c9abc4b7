"""Operators as one instruction of a program, the way fine-grained FX runs those that otherwise are several calls."""

from __future__ import annotations

from typing import Any

import torch

from optimum_int8.kernels import emit, emit_conv, emit_float
from optimum_int8.kernels.emit import Rows
from optimum_int8.kernels.immediate import Immediate, ImmediateImages


def _norm(op: str, x: Any, residual: Any, *rest: Any) -> Any:
    e = Immediate(x.shape[:-1])
    found = e.run(getattr(emit, op)(e, e.input(x), e.input(residual), *rest))
    return (*found[:2], *(t.squeeze(-1) for t in found[2:]))


def _attention(op: str, q: Any, k: Any, v: Any, *rest: Any) -> Any:
    e = Immediate(q.shape[:-1])
    scales, (heads, kv_heads, mask, scaling, causal, *grid) = rest[:3], rest[3:]
    inputs = [e.input(t) for t in (q, k, v)] + [s if s is None or s.dim() == 0 else e.input(s) for s in scales]
    rows = getattr(emit, op)(e, *inputs, heads, kv_heads, scaling, causal, *grid)
    return e.run(rows, q.shape[0], q.shape[1], mask, k.shape[1])


def _float_attention(op: str, q: Any, k: Any, v: Any, heads: int, kv_heads: int, bfloat16: bool, *rest: Any) -> Any:
    e = Immediate(q.shape[:-1])
    mask, scaling, causal, *grid = rest
    inputs = [e.input(t) for t in (q, k, v)]
    rows = getattr(emit_float, op)(e, *inputs, heads, kv_heads, bfloat16, scaling, causal, *grid)
    return e.run(rows, q.shape[0], q.shape[1], mask, k.shape[1])


def _embedding_add(op: str, ids: Any, table: Any, row_scale: Any, other: Any) -> Any:
    """The ids may stand for the whole batch: then each sequence reads them anew."""
    e = Immediate(other.shape[:-1])
    first = e.program.external(8, periodic=ids.shape != other.shape[:-1])
    e.tensors.append(ids.contiguous())
    rows = emit.embedding_add(e, Rows(first, 1, torch.int64), table, row_scale, e.input(other))
    return e.run(rows, other.shape[0], other.shape[1])


def _conv(op: str, x: Any, scale: Any, zero_point: Any, *rest: Any) -> Any:
    e = ImmediateImages(x.shape)
    at = 8  # of the residual
    residual = None if rest[at] is None else e.image(rest[at])
    inputs = e.image(x), e.scalars(scale), e.scalars(zero_point)
    return e.run_images(getattr(emit_conv, op)(e, *inputs, *rest[:at], residual, *rest[at + 1 :]))


def _avg_pool(op: str, x: Any, *rest: Any) -> Any:
    e = ImmediateImages(x.shape)
    return e.run_images(getattr(emit_conv, op)(e, e.image(x), *rest))


PROGRAMS = {
    "embedding_add": _embedding_add,
    "norm_quantized": _norm,
    "norm_quantized_rows": _norm,
    "attention_rows": _attention,
    "attention_rows_quantized": _attention,
    "attention_floats": _attention,
    "float_attention_rows_quantized": _float_attention,
    "conv_quantized": _conv,
    "conv_both": _conv,
    "avg_pool_quantized": _avg_pool,
}
"""Operators that are several calls (or `numerics`) when they are called by themselves."""


def run(op: str, args: tuple[Any, ...]) -> Any:
    """The native kernel of an operator, on the arguments of `torch.ops.optimum_int8.<op>`."""
    return PROGRAMS[op](op, *args) if op in PROGRAMS else getattr(torch.ops.optimum_int8, op)(*args)
