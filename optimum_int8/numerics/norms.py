"""Sums over a row in a fixed order, and the norms built from them."""

from __future__ import annotations

import torch
from torch import Tensor

_LANES = 16


def row_sum(x: Tensor) -> Tensor:
    """Sum over the last axis in the 16-lane order of the module's docstring."""
    width = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -width % _LANES)).unflatten(-1, (-1, _LANES))
    lanes = padded[..., 0, :]
    for i in range(1, padded.shape[-2]):
        lanes = lanes + padded[..., i, :]
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm over the last axis: mean, then the mean of squared differences, then `(x - mean) * (1 / sqrt(var + eps))`."""
    width = 1.0 / torch.tensor(float(x.shape[-1]))
    centred = x - (row_sum(x) * width).unsqueeze(-1)
    return _scale_rows(centred, row_sum(centred * centred) * width, weight, bias, eps)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis, without bias."""
    return _scale_rows(x, row_sum(x * x) * (1.0 / torch.tensor(float(x.shape[-1]))), weight, None, eps)


def head_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, heads: int, kind: str, eps: float) -> Tensor:
    """Layer norm or RMS norm (`kind`) of each of the heads of a row, `[..., heads * head]`, with one weight `[head]` for all of them."""
    split = x.unflatten(-1, (heads, -1))
    y = layer_norm(split, weight, bias, eps) if kind == "layer_norm" else _rms_norm_with_bias(split, weight, bias, eps)
    return y.flatten(-2)


def _rms_norm_with_bias(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    y = rms_norm(x, weight, eps)
    return y if bias is None else y + bias


def square_root(x: Tensor) -> Tensor:
    """Rounded once, as IEEE 754 says: torch's own (MKL's) is one unit off in one of 150 float32 values."""
    return torch.sqrt(x.to(torch.float64)).to(torch.float32)


def _scale_rows(x: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    y = x * (1.0 / square_root(variance + torch.tensor(eps, dtype=torch.float32))).unsqueeze(-1)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
