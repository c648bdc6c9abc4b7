"""Which tokens of a batch count where ranges are observed: padding does not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

_masks: ContextVar[Sequence[Tensor]] = ContextVar("token_masks", default=())


@contextlib.contextmanager
def counting(masks: Sequence[Tensor]) -> Iterator[None]:
    """Within, `mask_for` knows these boolean masks `[batch, length]`, True for a token that counts."""
    token = _masks.set(masks)
    try:
        yield
    finally:
        _masks.reset(token)


def mask_for(rows: torch.Size) -> Tensor | None:
    """The token mask, where `rows` are the tokens of the batch."""
    return next((mask for mask in _masks.get() if mask.shape == rows), None)
