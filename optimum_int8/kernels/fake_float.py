"""Shapes and dtypes of the float attention operators; see `fake`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import ops_float
from .fake import _fake, _like

assert ops_float.SCHEMAS  # defines the operators


@_fake("float_attention")
def _(query: Tensor, *rest: Any) -> Tensor:
    batch, heads, length, head = query.shape
    return _like(query, batch, length, heads, head)


@_fake("float_attention_rows")
def _(q: Tensor, *rest: Any) -> Tensor:
    return _like(q, *q.shape)


@_fake("float_attention_rows_quantized")
def _(q: Tensor, *rest: Any) -> Tensor:
    return _like(q, *q.shape, dtype=torch.uint8)
