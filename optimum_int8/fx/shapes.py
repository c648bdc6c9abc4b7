"""Shapes of a graph's values, light: torch's fake tensors cost a millisecond per operator with symbolic sizes, and each sibling of a
captured block is rewritten again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

Size = int | str
"""A number, or the expression of a size that differs from call to call."""


@dataclass(frozen=True)
class Shaped:
    """What passes ask of a value (`node.meta["val"]`): the part of a tensor's interface that needs no data."""

    shape: tuple[Size, ...]
    dtype: torch.dtype

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def is_floating_point(self) -> bool:
        """Whether its values are floats."""
        return self.dtype.is_floating_point

    def new_empty(self, shape: tuple[Size, ...], dtype: torch.dtype) -> Shaped:
        """Another value; what `kernels.fake` makes its results with."""
        return Shaped(tuple(shape), dtype)


def shaped(value: Any) -> Any:
    """Tensors, also in tuples, as `Shaped`, and sizes as integers without axes; other values as they are."""
    if isinstance(value, torch.SymInt):
        return Shaped((), torch.int64)
    if isinstance(value, torch.Tensor):
        return Shaped(tuple([size if type(size) is int else str(size) for size in value.shape]), value.dtype)
    return tuple([shaped(item) for item in value]) if isinstance(value, (tuple, list)) else value
