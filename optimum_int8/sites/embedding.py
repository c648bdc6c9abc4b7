"""Embeddings: tables whose rows are INT8 with a scale each; ids have no quantization parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..config import Int8Config
from ..nn.base import Int8Module
from ..nn.embedding import Int8Embedding, embedding_obstacle
from ..nn.fake import fake_quantize_embedding, unfake_embedding
from .kind import SiteKind
from .settings import FakeQuantization, Quantization, RecipeTraits, Storage

EMBEDDING = "embedding"


class EmbeddingKind(SiteKind[nn.Embedding]):
    """An INT8 table; a linear whose weight it is shares its values."""

    name = EMBEDDING
    inputs = ()
    recipe = RecipeTraits(ops=("embedding",), has_input_qparams=False, lists_weight_scales=False)
    holds_weights = True
    shares_weight = True
    loads_by_weight = True
    needs_ranges = False
    float_in_training = ""

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, nn.Embedding)

    def obstacle(self, name: str, module: nn.Embedding, config: Int8Config) -> str:
        """`quantize_embeddings`, tables added to attention scores, and what `embedding_obstacle` finds."""
        if not config.quantize_embeddings:
            return "quantize_embeddings is off"
        if name.endswith("attention_bias"):
            return "a small table that is added to attention scores, where an INT8 step is felt"
        return embedding_obstacle(module)

    def rows(self, module: nn.Embedding, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """None: ids are no activations."""
        return {}

    def from_float(self, module: nn.Embedding, how: Quantization) -> Int8Embedding:
        """See `SiteKind`."""
        return Int8Embedding.from_float(module, how.per_channel)

    def convert(
        self, model: nn.Module, name: str, make: Callable[[], Int8Module], shared: dict[int, Int8Module]
    ) -> None:
        """Tables of one weight share its INT8 values."""
        module: Any = model.get_submodule(name)
        owner = shared.get(id(module.weight))
        if isinstance(owner, Int8Embedding):
            new = Int8Embedding.like(module)
            new.share(owner)
            self.install(model, name, new)
            return
        made = make()
        shared[id(module.weight)] = made
        self.install(model, name, made)

    def empty(self, module: nn.Module, how: Storage) -> Int8Embedding | None:
        """See `SiteKind`."""
        return Int8Embedding.like(module) if isinstance(module, nn.Embedding) else None

    def fake(self, module: nn.Embedding, how: FakeQuantization) -> None:
        """See `SiteKind`."""
        fake_quantize_embedding(module, how.per_channel)

    def unfake(self, module: Any) -> None:
        """See `SiteKind`."""
        unfake_embedding(module)
