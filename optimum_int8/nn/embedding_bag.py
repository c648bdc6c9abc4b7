"""`Int8EmbeddingBag`: `nn.EmbeddingBag` with an int8 table, one scale per row."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gradient import straight_through, wants_gradients
from .table import Int8Table


class Int8EmbeddingBag(Int8Table):
    """The sum, mean or maximum of rows of an int8 table, each times its row's scale, in `dtype`. Arguments as `nn.EmbeddingBag`.

    Stored: `weight` int8 `[rows, dim, 1]`, `weight_scale` float32 `[rows]`. Loaded, the table is the buffer `int8_weight`.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.include_last_offset = include_last_offset
        self._hold_table(num_embeddings, embedding_dim, padding_idx, dtype)

    @classmethod
    def like(cls, module: nn.EmbeddingBag) -> Int8EmbeddingBag:
        """One without values in the place of `module`."""
        new = cls(
            module.num_embeddings,
            module.embedding_dim,
            module.mode,
            module.include_last_offset,
            module.padding_idx,
            module.weight.dtype,
        )
        return new.train(module.training)

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """See `nn.EmbeddingBag`. The gradient of `per_sample_weights` is that of the float table."""
        if per_sample_weights is not None and (self.mode != "sum" or per_sample_weights.shape != input.shape):
            raise ValueError(
                f"per_sample_weights of shape {list(per_sample_weights.shape)} with mode {self.mode!r}; expected the shape "
                f"{list(input.shape)} of the ids, and mode 'sum'"
            )
        starts = self._starts(input, offsets)
        factors = None if per_sample_weights is None else per_sample_weights.reshape(-1)
        ids = input.reshape(-1)

        def compute(factors: Tensor | None) -> Tensor:
            skipped = -1 if self.padding_idx is None else self.padding_idx
            table = self.int8_weight, self.weight_scale
            return torch.ops.optimum_int8.embedding_bag(ids, starts, *table, self.mode, skipped, factors).to(self.dtype)

        def in_float(factors: Tensor | None) -> Tensor:
            settings: Any = {"include_last_offset": True, "padding_idx": self.padding_idx, "mode": self.mode}
            weights = None if factors is None else factors.to(self.dtype)
            return F.embedding_bag(ids, self.dequantize(), starts, per_sample_weights=weights, **settings)

        if wants_gradients(factors):
            found: Tensor = straight_through(compute, in_float, factors)
            return found
        return compute(factors)

    def _starts(self, input: Tensor, offsets: Tensor | None) -> Tensor:
        """Where bags begin, and where the last one ends."""
        if input.dim() == 2 and offsets is None:
            return torch.arange(input.shape[0] + 1) * input.shape[1]
        if input.dim() != 1 or offsets is None or offsets.dim() != 1:
            raise ValueError(
                f"EmbeddingBag got ids of {input.dim()} axes with {'no ' if offsets is None else ''}offsets; expected 2 axes "
                "without offsets, or 1 with offsets of 1"
            )
        offsets = offsets.to(torch.int64)
        begins = offsets[:-1] if self.include_last_offset else offsets
        return torch.cat([begins, offsets.new_full((1,), input.shape[0])])

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode!r}"


def embedding_bag_obstacle(module: nn.EmbeddingBag) -> str:
    """Why an INT8 module would not compute the same, or nothing."""
    if type(module) is not nn.EmbeddingBag:
        return f"{type(module).__name__} is an EmbeddingBag of its own kind"
    if module.max_norm is not None:
        return "max_norm changes the table while reading it"
    if set(module._parameters) != {"weight"} or module._buffers or module._modules:
        return "EmbeddingBag has other tensors than torch's, by which its table may be computed"
    return ""
