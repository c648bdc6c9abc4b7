"""Which tensors of a checkpoint are an INT8 module's, and which the model's own, whatever they are called."""

from __future__ import annotations

from collections.abc import Collection

import torch

from ..nn import CHILD
from ..nn.base import QPARAMS, WEIGHTS


def is_ours(name: str, modules: Collection[str] | None) -> bool:
    """Whether a tensor is one of an INT8 module's, and not a model's own that happens to be called like one.

    Args:
        modules: names of the INT8 modules; None takes every tensor for theirs.
    """
    if modules is None:
        return True
    owner, _, leaf = name.rpartition(".")
    known = owner in modules or owner.removesuffix(f".{CHILD}") in modules
    return known and (WEIGHTS.fullmatch(leaf) is not None or QPARAMS.fullmatch(leaf) is not None)


_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
"""Types that a model's own floats are stored in."""


def same_type(found: torch.dtype, expected: torch.dtype, ours: bool) -> bool:
    """Whether a stored type will do: of the model's own floats any float type, which Transformers loads in the model's."""
    return found == expected or (not ours and found in _FLOATS and expected in _FLOATS)
