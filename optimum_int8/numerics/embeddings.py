"""Embedding tables of int8 rows."""

from __future__ import annotations

import torch
from torch import Tensor

BAG_MODES = ("sum", "mean", "max")


def embedding(ids: Tensor, table: Tensor, row_scale: Tensor) -> Tensor:
    """Rows `ids` of an int8 `[rows, dim]` table as float32 `[..., dim]`, each times its row's scale."""
    return table[ids].to(torch.float32) * row_scale[ids].unsqueeze(-1)


def embedding_bag(
    ids: Tensor,
    starts: Tensor,
    table: Tensor,
    row_scale: Tensor,
    mode: str,
    skipped: int = -1,
    factors: Tensor | None = None,
) -> Tensor:
    """The sum, mean or maximum of the rows of each bag, added in order: float32 `[bags, dim]`; zero for an empty one.

    Args:
        ids: int64 `[count]`.
        starts: int64 `[bags + 1]`: bag `i` has the ids from `starts[i]` to `starts[i + 1]`.
        table, row_scale: as of `embedding`.
        mode: one of `BAG_MODES`.
        skipped: an id that counts for nothing, -1 for none.
        factors: float32 `[count]`, that the rows are multiplied by.

    Raises:
        IndexError: an id is outside the table.
    """
    if bool((ids < 0).any()):
        raise IndexError("an index is outside the embedding table")
    sizes = starts[1:] - starts[:-1]
    total = torch.zeros(len(sizes), table.shape[1])
    members = torch.zeros(len(sizes), 1)
    for place in range(int(sizes.max()) if len(sizes) else 0):
        (bags,) = torch.nonzero(sizes > place, as_tuple=True)
        taken = starts[bags] + place
        counts = ids[taken] != skipped
        bags, taken = bags[counts], taken[counts]
        rows = embedding(ids[taken], table, row_scale)
        if factors is not None:
            rows = rows * factors[taken].unsqueeze(-1)
        if mode == "max":
            is_larger = (members[bags] > 0) & (total[bags] > rows)
            total[bags] = torch.where(is_larger, total[bags], rows)
        else:
            total[bags] += rows
        members[bags] += 1
    return total / members.clamp(min=1) if mode == "mean" else total


def check_bags(count: int, starts: Tensor) -> None:
    """Raises `ValueError` where bags are no spans of so many ids, one after another."""
    steps = starts.tolist()
    if not steps or steps[0] != 0 or steps[-1] != count or steps != sorted(steps):
        raise ValueError(
            f"bags begin at {steps[:-1]} and end at {steps[-1:]}; expected rising places from 0 to {count}"
        )
