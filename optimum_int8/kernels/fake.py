"""Shapes and dtypes of the operators, for tracing without data (`torch.export`, `torch.compile`) and for passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import ops_float
from .emit import row_bytes
from .library import library
from .ops import SCHEMAS

assert ops_float.SCHEMAS  # defines the operators

FAKES: dict[str, Callable[..., Any]] = {}
"""By operator name: from arguments to a result of its shape and dtype. Arguments need a `shape` and a `new_empty` only."""


def _fake(*names: str) -> Any:
    assert SCHEMAS.keys() >= set(names)

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            FAKES[name] = function
            torch.library.register_fake(f"optimum_int8::{name}")(function)
        return function

    return register


def _like(x: Tensor, *shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    return x.new_empty(shape, dtype=dtype)


def _bytes(x: Tensor, *shape: Any) -> Tensor:
    """uint8 rows as the kernels lay them out, which code generators rely on; passes ask for the shape alone."""
    if not isinstance(x, Tensor) or library() is None or not shape:
        return _like(x, *shape, dtype=torch.uint8)
    steps = [row_bytes(shape[-1], torch.uint8)]
    for size in reversed(shape[1:-1]):
        steps.insert(0, steps[0] * size)
    return x.new_empty_strided(shape, (*steps, 1) if len(shape) > 1 else (1,), dtype=torch.uint8)


@_fake("quantize")
def _(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return _bytes(x, *x.shape)


@_fake("quantize_rows")
def _(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.shape[:-1]
    return _bytes(x, *x.shape), _like(x, *rows), _like(x, *rows, dtype=torch.int32)


@_fake("quantize_groups")
def _(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    return _bytes(x, *x.shape), _like(x, *x.shape[:-1], groups)


@_fake("linear")
def _(
    x: Tensor,
    scale: Any,
    zero_point: Any,
    panels: Any,
    weight_sum: Any,
    weight_scale: Tensor,
    bias: Any,
    activation: str = "",
) -> Tensor:
    return _like(x, *x.shape[:-1], weight_scale.shape[0])


@_fake("linear_quantized")
def _(
    x: Tensor,
    scale: Any,
    zero_point: Any,
    panels: Any,
    weight_sum: Any,
    weight_scale: Tensor,
    bias: Any,
    activation: str,
    *grid: Any,
) -> Tensor:
    return _bytes(x, *x.shape[:-1], weight_scale.shape[0])


@_fake("norm")
def _(x: Tensor, *rest: Any) -> Tensor:
    return _like(x, *x.shape)


@_fake("norm_quantized")
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _like(x, *x.shape), _bytes(x, *x.shape)


@_fake("norm_quantized_rows")
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = x.shape[:-1]
    return (
        _like(x, *x.shape),
        _bytes(x, *x.shape),
        _like(x, *rows),
        _like(x, *rows, dtype=torch.int32),
    )


@_fake("embedding")
def _(ids: Tensor, table: Tensor, row_scale: Tensor) -> Tensor:
    return _like(ids, *ids.shape, table.shape[1])


@_fake("embedding_add")
def _(ids: Tensor, table: Tensor, row_scale: Tensor, other: Tensor) -> Tensor:
    return _like(other, *other.shape)


@_fake("attention", "float_attention")
def _(query: Tensor, *rest: Any) -> Tensor:
    batch, heads, length, head = query.shape
    return _like(query, batch, length, heads, head)


@_fake("attention_floats", "attention_rows", "float_attention_rows")
def _(q: Tensor, *rest: Any) -> Tensor:
    return _like(q, *q.shape)


@_fake("attention_rows_quantized", "float_attention_rows_quantized")
def _(q: Tensor, *rest: Any) -> Tensor:
    return _like(q, *q.shape, dtype=torch.uint8)
