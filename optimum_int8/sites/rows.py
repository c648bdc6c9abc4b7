"""Inputs and outputs of float modules as rows, `[..., channels]`: what observers, fake quantizers and error measures count."""

from __future__ import annotations

from torch import Tensor, nn

from ..nn.pool import AVERAGES


def channels_last(module: nn.Module, x: Tensor) -> Tensor:
    """An input or output of `module` as `[..., channels]`: those of a convolution and of a pooling have them in front of their positions."""
    axes = (
        len(module.kernel_size)
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        else AVERAGES.get(type(module), 0)
    )
    return x.movedim(-axes - 1, -1) if axes else x


def merge_heads(x: Tensor) -> Tensor:
    """`[batch, heads, length, head]` as `[batch, length, heads * head]`."""
    return x.transpose(1, 2).flatten(2)
