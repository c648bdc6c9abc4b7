"""Shapes and dtypes of results, for tracing without data (`torch.export`, `torch.compile`) and for passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..kernels.emission import row_bytes
from ..kernels.native import library
from ..numerics import Window


def like(x: Tensor, *shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """A result of this shape."""
    return x.new_empty(shape, dtype=dtype)


def same_shape(*given: Any, **named: Any) -> Tensor:
    """float32 of the first argument's shape, whatever its name."""
    x = (*given, *named.values())[0]
    return like(x, *x.shape)


def byte_rows(x: Tensor, *shape: Any) -> Tensor:
    """uint8 rows as the kernels lay them out, which code generators rely on; passes ask for the shape alone."""
    if not isinstance(x, Tensor) or library() is None or not shape:
        return like(x, *shape, dtype=torch.uint8)
    steps = [row_bytes(shape[-1], torch.uint8)]
    for size in reversed(shape[1:-1]):
        steps.insert(0, steps[0] * size)
    return x.new_empty_strided(shape, (*steps, 1) if len(shape) > 1 else (1,), dtype=torch.uint8)


def image_shape(x: Tensor, window: Any, channels: Any) -> tuple[Any, ...]:
    """Of what a window makes of images `[batch, height, width, channels]`."""
    batch, height, width = x.shape[:3]
    return batch, *_moved(Window(*window), height, width), channels


def _moved(window: Window, height: Any, width: Any) -> tuple[Any, Any]:
    """Of a size that differs from call to call (a name, see `fx.shapes`), the expression."""
    down = window._replace(width=1, dilation_x=1)
    across = window._replace(height=1, dilation_y=1)
    rows = f"rows of {height} under {down}" if isinstance(height, str) else window.output_size(height, 0)[0]
    columns = f"columns of {width} under {across}" if isinstance(width, str) else window.output_size(0, width)[1]
    return rows, columns
