"""How the kernels hold the weights of a convolution: per group as the panels of a linear, or as a table of taps when depthwise."""

from __future__ import annotations

import torch
from torch import Tensor

from .packing import PANEL, pack, row_sums, unpack

LANES = 16


def is_depthwise(out_channels: int, group_channels: int, groups: int) -> bool:
    """Whether each channel is a group of its own."""
    return groups > 1 and group_channels == 1 and out_channels == groups


def pack_conv(weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """int8 `[out, in / groups, height, width]` to `(packed, sums)`.

    `packed` holds the panels of each group after one another, K running over height, width, channels: int8, as `packing.pack`. Of
    a depthwise convolution it is a table float32 `[height * width, out]`. Both, and int32 `sums` of each output channel, are padded with
    zeros, per group, to whole panels.
    """
    out, channels = weight.shape[:2]
    if is_depthwise(out, channels, groups):
        flat = weight.flatten(1)
        table = torch.nn.functional.pad(flat.T.to(torch.float32), (0, -out % PANEL)).contiguous()
        return table, row_sums(flat)
    parts = weight.permute(0, 2, 3, 1).reshape(groups, out // groups, -1)
    if groups == 1:
        return pack(parts[0]), row_sums(parts[0])
    return torch.cat([pack(part) for part in parts]), torch.cat([row_sums(part) for part in parts])


def unpack_conv(packed: Tensor, out: int, channels: int, groups: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `pack_conv`: int8 `[out, channels, *size]`, `channels` being those of one group."""
    if packed.dtype == torch.float32:
        return packed[:, :out].T.to(torch.int8).reshape(out, channels, *size).contiguous()
    rows = out // groups
    taps = size[0] * size[1]
    parts = [unpack(panels, rows, taps * channels) for panels in packed.chunk(groups)]
    return torch.cat(parts).view(out, *size, channels).permute(0, 3, 1, 2).contiguous()
