"""Embedding tables of int8 rows."""

from __future__ import annotations

import torch
from torch import Tensor


def embedding(ids: Tensor, table: Tensor, row_scale: Tensor) -> Tensor:
    """Rows `ids` of an int8 `[rows, dim]` table as float32 `[..., dim]`, each times its row's scale."""
    return table[ids].to(torch.float32) * row_scale[ids].unsqueeze(-1)
