"""When a graph computes what its module does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def agree(found: Any, expected: list[Tensor], tolerance: float = 0.0) -> bool:
    """Equal to the bit, or with a tolerance: shapes equal and root mean square error within that share of the values' own.

    A rewrite may round an activation differently and so move a value to the next of 256 steps; a wrong one is off by far more.
    """
    if len(found) != len(expected) or any(f.shape != e.shape for f, e in zip(found, expected, strict=True)):
        return False
    if tolerance == 0.0:
        return all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    for f, e in zip(found, expected, strict=True):
        error, size = (f.double() - e.double()).square().mean().sqrt(), e.double().square().mean().sqrt()
        if not error <= tolerance * size + 1e-6:
            return False
    return True
