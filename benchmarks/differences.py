"""How two results differ, to the bit or up to float rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def difference(found: Any, expected: Any) -> str | None:
    """None when both (tensors or tuples of them) hold the same bits, else how they differ. All NaN are the same."""
    if not isinstance(expected, Tensor):
        return _first_difference(found, expected)
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{found.dtype} {tuple(found.shape)} is not {expected.dtype} {tuple(expected.shape)}"
    if torch.equal(found, expected) and not found.is_floating_point():
        return None
    unequal = found != expected
    if found.is_floating_point():
        unequal = (found.view(torch.int32) != expected.contiguous().view(torch.int32)) & ~(
            found.isnan() & expected.isnan()
        )
    if not unequal.any():
        return None
    where = tuple(unequal.nonzero()[0].tolist())
    return (
        f"{int(unequal.sum())} of {unequal.numel()} differ, first at {where}: {found[where]} is not {expected[where]}"
    )


def distance(found: Any, expected: Any) -> str | None:
    """None when both are equal but for float rounding, which turns the bfloat16 rounding of an exponential now and then. Of several results
    that is the first, the others are to have the same bits."""
    if not isinstance(expected, Tensor):
        return distance(found[0], expected[0]) or _first_difference(found[1:], expected[1:])
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{found.dtype} {tuple(found.shape)} is not {expected.dtype} {tuple(expected.shape)}"
    if found.dtype == torch.uint8:
        off = (found.int() - expected.int()).abs()
        return None if int(off.max()) <= 1 and float(off.float().mean()) < 0.01 else f"{int(off.max())} levels"
    error, size = (found - expected).abs(), expected.abs()
    good = float(error.max()) <= 2.0**-8 * float(size.max()) and float(error.norm()) <= 3e-4 * float(size.norm())
    return None if good else f"off by {float(error.max())} of {float(size.max())}"


def _first_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    if len(found) != len(expected):
        return f"{len(found)} results instead of {len(expected)}"
    for i, pair in enumerate(zip(found, expected, strict=True)):
        if (told := difference(*pair)) is not None:
            return f"result {i}: {told}"
    return None
