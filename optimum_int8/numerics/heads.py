"""Queries, keys and values of a row that holds those of each head together."""

from __future__ import annotations

from torch import Tensor


def take_heads(x: Tensor, start: int, stride: int, heads: int, head: int) -> Tensor:
    """Pieces of `head` columns of `[..., K]`, one beside the other: the first from column `start` on, the others each `stride` further.

    Raises:
        ValueError: a piece reaches beyond the row.
    """
    end = start + (heads - 1) * stride + head
    if start < 0 or stride < 1 or end > x.shape[-1]:
        raise ValueError(f"pieces up to column {end} of rows of {x.shape[-1]}; expected as many at most")
    return x[..., start:].unfold(-1, head, stride)[..., :heads, :].flatten(-2)
