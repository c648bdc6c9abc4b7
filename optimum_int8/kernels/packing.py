"""Weight panels: how the kernels hold an int8 matrix. 32 rows (output channels) by K, K in groups of four."""

from __future__ import annotations

import torch
from torch import Tensor

from ..torch_private import int8_matmul
from .large_pages import empty_weight

PANEL = 32
STEP = 64


def pack(weight: Tensor) -> Tensor:
    """int8 `[N, K]` to panels `[ceil(N/32), ceil(K/64), 2, 16, 16, 4]`: panel, step, half, group, channel, four of K; zero padded."""
    rows, columns = weight.shape
    if rows % PANEL or columns % STEP or weight.storage_offset() % 4:
        weight = torch.nn.functional.pad(weight, (0, -columns % STEP, 0, -rows % PANEL))
    panels = weight.shape[0] // PANEL
    steps = weight.shape[1] // STEP
    groups = weight.contiguous().view(torch.int32).view(panels, 2, 16, steps, 16)  # four bytes move as one number
    sizes = (panels, steps, 2, 16, 16, 4)
    if weight.device.type == "cpu":
        packed = empty_weight(sizes)
    else:
        packed = torch.empty(sizes, dtype=torch.int8, device=weight.device)
    packed.view(torch.int32).squeeze(-1).copy_(groups.permute(0, 3, 1, 4, 2))
    return packed


def unpack(panels: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `pack`: int8 `[rows, columns]`."""
    count, steps = panels.shape[:2]
    whole = panels.permute(0, 2, 4, 1, 3, 5).reshape(count * PANEL, steps * STEP)
    return whole[:rows, :columns].contiguous()


def row_sums(weight: Tensor) -> Tensor:
    """int32 sum of each row, padded with zeros to whole panels: what a zero point of the input costs."""
    if int8_matmul is None or weight.device.type != "cpu":
        sums = weight.sum(1, dtype=torch.int32)
    else:  # as exact, and takes a tenth of the time
        sums = int8_matmul(weight, torch.ones(weight.shape[1], 1, dtype=torch.int8)).squeeze(1)
    return torch.nn.functional.pad(sums, (0, -weight.shape[0] % PANEL)).contiguous()
