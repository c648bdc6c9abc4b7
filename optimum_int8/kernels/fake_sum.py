"""Shapes and dtypes of the operators on sums; see `fake`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import ops_sum
from .fake import _bytes, _fake, _like

assert ops_sum.SCHEMAS  # defines the operators


def _sum_shape(x: Tensor, y: Tensor) -> Any:
    """Passes know sizes by name, and add equal shapes alone."""
    return x.shape if tuple(x.shape) == tuple(y.shape) else torch.broadcast_shapes(x.shape, y.shape)


@_fake("dequantize")
def _(q: Tensor, scale: Any, zero_point: Any) -> Tensor:
    return _like(q, *q.shape)


@_fake("add")
def _(x: Tensor, scale: Any, zero_point: Any, y: Tensor, *grid: Any) -> Tensor:
    return _like(x, *_sum_shape(x, y))


@_fake("add_quantized")
def _(x: Tensor, scale: Any, zero_point: Any, y: Tensor, *grids: Any) -> Tensor:
    return _bytes(x, *_sum_shape(x, y))


@_fake("cat_quantized")
def _(parts: Sequence[Tensor], *grids: Any) -> Tensor:
    return _bytes(parts[0], *parts[0].shape[:-1], sum(x.shape[-1] for x in parts))
