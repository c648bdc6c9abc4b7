"""Sums and concatenations of INT8 values for `cases.CASES`: every width around the vectors, equal and unequal grids, the ends of the range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Made = Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]

WIDTHS = (1, 15, 16, 17, 33, 64, 97)


def grid(scale: float, zero_point: int) -> tuple[Tensor, Tensor]:
    return torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)


FIRST, SECOND, RESULT = grid(0.031, 128), grid(0.0071, 3), grid(0.033, 117)
TINY, HUGE = grid(2.0**-126, 255), grid(1e36, 0)


def values(*shape: int) -> Tensor:
    q = torch.randint(0, 256, shape, dtype=torch.uint8)
    q.view(-1)[:: max(q.numel() // 7, 1)] = 255
    q.view(-1)[1 :: max(q.numel() // 5, 1)] = 0
    return q


def dequantize() -> Made:
    for width in WIDTHS:
        yield f"{width}", lambda w=width: (values(9, w), *FIRST)
    yield "image", lambda: (values(2, 5, 7, 33), *SECOND)
    yield "huge", lambda: (values(3, 20), *HUGE)
    yield "strided", lambda: (values(5, 40, 3).transpose(1, 2)[:, :, ::2], *FIRST)


def add(*result: Tensor) -> Made:
    for width in WIDTHS:
        yield f"{width}", lambda w=width: (values(9, w), *FIRST, values(9, w), *SECOND, *result)
    yield "image", lambda: (values(2, 5, 7, 33), *SECOND, values(2, 5, 7, 33), *FIRST, *result)
    yield "broadcast", lambda: (values(4, 1, 17), *FIRST, values(5, 17), *SECOND, *result)
    yield "far_apart", lambda: (values(3, 20), *TINY, values(3, 20), *HUGE, *result)


def cat() -> Made:
    for width in WIDTHS:
        parts = (width, 16, 3)
        yield f"{width}", lambda p=parts: ([values(9, w) for w in p], *zip(FIRST, SECOND, RESULT, strict=True), *RESULT)
    yield "image", lambda: ([values(2, 5, 7, 33), values(2, 5, 7, 64)], *zip(RESULT, FIRST, strict=True), *RESULT)
    yield "one_part", lambda: ([values(6, 64)], *zip(SECOND, strict=True), *RESULT)


def listed(made: Made) -> Made:
    """Sequences of an operator's arguments as lists."""
    for name, make in made:
        yield name, lambda m=make: tuple(list(a) if isinstance(a, tuple) else a for a in m())
