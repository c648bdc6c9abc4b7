"""What INT8 tables share: rows of int8 values with a scale each, as `Int8Embedding` and `Int8EmbeddingBag` read them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import numerics
from .weight import Int8Weighted


class Int8Table(Int8Weighted):
    """Base of modules that read rows of an int8 table.

    Stored: `weight` int8 `[rows, dim, 1]`, `weight_scale` float32 `[rows]`. Loaded, the table is the buffer `int8_weight`, and reading
    `weight` gives float `[rows, dim]`.
    """

    int8_weight: Tensor

    def _hold_table(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, dtype: torch.dtype) -> None:
        """Hold an empty table; `dtype` is that of results."""
        self.dtype = dtype
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self._hold(torch.empty(num_embeddings, embedding_dim, 1, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.empty(num_embeddings, dtype=torch.float32))

    @classmethod
    def like(cls, module: Any) -> Any:
        """One without values in the place of a float module."""
        raise NotImplementedError

    @classmethod
    def from_float(cls, module: nn.Embedding | nn.EmbeddingBag, per_channel: bool = True) -> Any:
        """Quantize a table; with `per_channel` False all rows carry one scale."""
        new = cls.like(module)
        q, new.weight_scale = numerics.quantize_weight(module.weight, per_channel)
        new.weight = q.unsqueeze(-1)
        new.finish_loading()
        return new

    @property
    def products_per_row(self) -> int:
        """None are computed: a table is read."""
        return 0

    def finish_loading(self) -> None:
        """See `Int8Module.finish_loading`."""
        if "weight" in self._buffers:
            self.register_buffer("int8_weight", self._buffers.pop("weight"), persistent=False)

    def release(self) -> None:
        """See `Int8Weighted.release`."""
        if "int8_weight" in self._buffers:
            self._hold(self._buffers.pop("int8_weight"))  # type: ignore[arg-type]

    def quantized_weight(self) -> Tensor:
        """The table as it is stored: int8 `[rows, dim, 1]`."""
        stored = self._buffers.get("weight")
        return self.int8_weight if stored is None else stored

    def float_shape(self) -> tuple[int, ...]:
        """Shape of the float table."""
        return tuple(self.quantized_weight().shape[:2])

    def int8_storage(self) -> Tensor:
        """The int8 table."""
        return self.quantized_weight()
