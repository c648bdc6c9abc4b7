"""Products of two activations next to the attention core: `Scores` in float, `Int8Scores` on INT8."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .. import numerics
from .base import Int8Module
from .gradient import straight_through, wants_gradients

SCORES_INPUTS = ("query", "key")


class Scores(nn.Module):
    """`query @ key.T`, row by row: float `[batch, heads, M, head]` by `[batch, heads, N, head]` to `[batch, heads, M, N]`."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """See the class."""
        return query @ key.transpose(-1, -2)


class Int8Scores(Int8Module):
    """`Scores` on symmetric INT8 rows; stored when static: `query_scale`, `key_scale`, float32 `[]`. Dynamic measures one per row."""

    query_scale: Tensor | None
    key_scale: Tensor | None

    def __init__(self, static: bool = True, activation_bits: int = 8) -> None:
        super().__init__()
        self.activation_bits = activation_bits
        self._qparam_buffers(("query_scale", "key_scale"), static)

    @classmethod
    def from_ranges(cls, ranges: Mapping[str, tuple[float, float]] | None, activation_bits: int = 8) -> Int8Scores:
        """From the ranges of `query` and `key`; None makes it dynamic."""
        new = cls(ranges is not None, activation_bits)
        for name, (low, high) in (ranges or {}).items():
            scale = numerics.choose_symmetric_scale(max(abs(low), abs(high)), activation_bits)
            setattr(new, f"{name}_scale", torch.tensor(scale))
        return new

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """See `Scores`; in query's dtype. The gradient is that of `Scores`."""
        if wants_gradients(query, key):
            return straight_through(self._compute, lambda query, key: query @ key.transpose(-1, -2), query, key)
        return self._compute(query, key)

    def _compute(self, query: Tensor, key: Tensor) -> Tensor:
        if self.activation_bits < 8:
            query = self._clip(query, self.query_scale)
            key = self._clip(key, self.key_scale)
        return torch.ops.optimum_int8.scores(query, key, self.query_scale, self.key_scale).to(query.dtype)

    def _clip(self, x: Tensor, scale: Tensor | None) -> Tensor:
        assert scale is not None  # fewer bits are static
        limit = scale * float(numerics.affine_max(self.activation_bits) // 2)
        return x.clamp(-limit, limit)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return "dynamic" if self.query_scale is None else "static"
