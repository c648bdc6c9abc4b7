"""`Int8EmbeddingBag`: `nn.EmbeddingBag` with an int8 table, one scale per row."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import numerics
from .gradient import straight_through, wants_gradients
from .weight import Int8Weighted


class Int8EmbeddingBag(Int8Weighted):
    """The sum, mean or maximum of rows of an int8 table, each times its row's scale, in `dtype`. Arguments as `nn.EmbeddingBag`.

    Stored: `weight` int8 `[rows, dim, 1]`, `weight_scale` float32 `[rows]`. Loaded, the table is the buffer `int8_weight`.
    """

    int8_weight: Tensor

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
        self.dtype = dtype
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.mode = mode
        self.include_last_offset = include_last_offset
        self.padding_idx = padding_idx
        self._hold(torch.empty(num_embeddings, embedding_dim, 1, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.empty(num_embeddings, dtype=torch.float32))

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

    @classmethod
    def from_float(cls, module: nn.EmbeddingBag, per_channel: bool = True) -> Int8EmbeddingBag:
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

    def quantized_weight(self) -> Tensor:
        """The table as it is stored: int8 `[rows, dim, 1]`."""
        stored = self._buffers.get("weight")
        return self.int8_weight if stored is None else stored

    def float_shape(self) -> tuple[int, ...]:
        """Shape of the float table."""
        return self.num_embeddings, self.embedding_dim

    def int8_storage(self) -> Tensor:
        """The int8 table."""
        return self.quantized_weight()

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
