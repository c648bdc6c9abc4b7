"""Sums, means and maxima of rows of tables: `nn.EmbeddingBag`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..config import Int8Config
from ..nn.embedding_bag import Int8EmbeddingBag, embedding_bag_obstacle
from .kind import SiteKind
from .settings import Quantization, Storage

EMBEDDING_BAG = "embedding_bag"


class EmbeddingBagKind(SiteKind[nn.EmbeddingBag]):
    """An INT8 table; ids have no quantization parameters."""

    name = EMBEDDING_BAG
    inputs = ()
    holds_weights = True
    loads_by_weight = True
    needs_ranges = False
    float_in_training = "sums of table rows stay FP32 in training"

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, nn.EmbeddingBag)

    def obstacle(self, name: str, module: nn.EmbeddingBag, config: Int8Config) -> str:
        """`quantize_embeddings`, and what `embedding_bag_obstacle` finds."""
        return embedding_bag_obstacle(module) if config.quantize_embeddings else "quantize_embeddings is off"

    def rows(self, module: nn.EmbeddingBag, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """None: ids are no activations."""
        return {}

    def from_float(self, module: nn.EmbeddingBag, how: Quantization) -> Int8EmbeddingBag:
        """See `SiteKind`."""
        return Int8EmbeddingBag.from_float(module, how.per_channel)

    def empty(self, module: nn.Module, how: Storage) -> Int8EmbeddingBag | None:
        """See `SiteKind`."""
        return Int8EmbeddingBag.like(module) if type(module) is nn.EmbeddingBag else None
