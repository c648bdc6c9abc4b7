"""The definition of the INT8 product of two activations, in plain torch; continues `numerics`, with its rules."""

from __future__ import annotations

import torch
from torch import Tensor

from .numerics import SYMMETRIC_ZERO_POINT


def matmul(x: Tensor, scale: Tensor, zero_point: Tensor, y: Tensor, y_scale: Tensor) -> Tensor:
    """Two activations: uint8 `[..., M, K]` by uint8 `[..., K, N]` with zero point 128, to float32 `sums * (scale * y_scale)`.

    The scales are scalars; leading axes broadcast.
    """
    a = x.to(torch.float64) - zero_point.to(torch.float64)
    sums = (a @ (y.to(torch.float64) - SYMMETRIC_ZERO_POINT)).to(torch.int32)
    return sums.to(torch.float32) * (scale.to(torch.float32) * y_scale)
