"""Models with outliers whose function is unchanged: what quantization per tensor cannot hold, and the remedies must."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from optimum_int8.nn import float_weight

FACTOR = 32.0
"""A power of two, so that the float model computes the same to the bit."""


def factors(channels: int, count: int = 3, step: int = 7) -> Tensor:
    """`FACTOR` on `count` channels, 1 elsewhere."""
    scale = torch.ones(channels)
    scale[torch.arange(count) * step % channels] = FACTOR
    return scale


@torch.no_grad()
def scale_norm(norm: nn.Module, readers: Iterable[nn.Module]) -> None:
    """A few channels of a norm's output times `FACTOR`, undone in the linears that read it."""
    scale = factors(norm.weight.numel())
    for parameter in norm.parameters():
        parameter.mul_(scale)
    for linear in readers:
        float_weight(linear).div_(scale)


@torch.no_grad()
def scale_values(value: nn.Linear, output: nn.Linear) -> None:
    """A few value channels times `FACTOR`, undone in the output projection."""
    scale = factors(value.out_features)
    value.weight.mul_(scale.unsqueeze(1))
    value.bias.mul_(scale)
    output.weight.div_(scale)
