"""How the kernel of recurrent layers holds the weight of the hidden state: of each direction, block by block, 32 units of each gate."""

from __future__ import annotations

import torch
from torch import Tensor

from .packing import PANEL


def by_blocks(x: Tensor, gates: int) -> Tensor:
    """`[gates * units, ...]` to `[blocks * gates * 32, ...]`: the gates of 32 units follow one another; zero padded."""
    units = x.shape[0] // gates
    padded = x.new_zeros(gates, -(-units // PANEL) * PANEL, *x.shape[1:])
    padded[:, :units] = x.view(gates, units, *x.shape[1:])
    return padded.view(gates, -1, PANEL, *x.shape[1:]).transpose(0, 1).reshape(-1, *x.shape[1:])


def from_blocks(x: Tensor, gates: int, units: int) -> Tensor:
    """The inverse of `by_blocks`."""
    whole = x.view(-1, gates, PANEL, *x.shape[1:]).transpose(0, 1).reshape(gates, -1, *x.shape[1:])
    return torch.cat([gate[:units] for gate in whole])
