"""Rotary position embedding of the heads of a row."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary(x: Tensor, cos: Tensor, sin: Tensor, heads: int, interleaved: bool) -> Tensor:
    """Each head turned by the angles of its row: `x * cos + rotated(x) * sin`, two products and their sum, as Transformers computes it.

    `rotated` is `(-second, first)` of pairs that lie half of the angles apart, or of neighbours. cos and sin are inputs, so that whatever
    scaled them has been done.

    Args:
        x: float32 `[..., heads * head]`.
        cos, sin: float32 `[..., turned]`, broadcast over leading axes. Elements of a head from `turned` on, where there are any, stay.

    Raises:
        ValueError: `turned` is odd, or more than a head has.
    """
    split = x.unflatten(-1, (heads, -1))
    turned = checked_angles(split.shape[-1], cos.shape[-1])
    part = split[..., :turned]
    if interleaved:
        rotated = torch.stack((-part[..., 1::2], part[..., ::2]), -1).flatten(-2)
    else:
        rotated = torch.cat((-part[..., turned // 2 :], part[..., : turned // 2]), -1)
    out = part * cos.unsqueeze(-2) + rotated * sin.unsqueeze(-2)
    return torch.cat((out, split[..., turned:]), -1).flatten(-2)


def checked_angles(head: int, turned: int) -> int:
    """How many elements of a head are turned.

    Raises:
        ValueError: as of `rotary`.
    """
    if turned % 2 or turned > head:
        raise ValueError(f"{turned} angles for heads of {head} elements; expected an even number up to {head}")
    return turned
