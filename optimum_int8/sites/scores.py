"""Products of two activations next to an attention core: `Scores`, which families with relative positions are taken apart into."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..config import Int8Config
from ..nn.scores import SCORES_INPUTS, Int8Scores, Scores
from .kind import SiteKind
from .rows import merge_heads
from .settings import Quantization, Storage

SCORES = "scores"


class ScoresKind(SiteKind[Scores]):
    """Two inputs as symmetric INT8 rows, no weight."""

    name = SCORES
    inputs = SCORES_INPUTS
    symmetric = True
    float_in_training = "products with positions stay float in training"

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, Scores)

    def obstacle(self, name: str, module: Scores, config: Int8Config) -> str:
        """Training, and what `config` says of the core next to it."""
        if config.approach == "qat":
            return self.float_in_training
        if config.attention != "int8":
            return f"attention is set to {config.attention}"
        return "its core is excluded by name" if name.rpartition(".")[0] in config.exclude_attention else ""

    def rows(self, module: Scores, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """Of `[batch, heads, length, head]`."""
        return {name: merge_heads(x) for name, x in zip(self.inputs, inputs, strict=True)}

    def output_rows(self, module: Scores, output: Tensor) -> Tensor:
        """Of `[batch, heads, queries, keys]`: one channel, since there are as many columns as keys."""
        return output.reshape(-1, 1)

    def from_float(self, module: Scores, how: Quantization) -> Int8Scores:
        """See `SiteKind`."""
        return Int8Scores.from_ranges(how.ranges, how.activation_bits)

    def empty(self, module: nn.Module, how: Storage) -> Int8Scores | None:
        """See `SiteKind`."""
        return Int8Scores(how.static, how.activation_bits) if isinstance(module, Scores) else None

    def multiply_adds(self, module: Scores, inputs: tuple[Any, ...], output: Tensor) -> int:
        """See `SiteKind`."""
        return output.numel() * inputs[0].shape[-1]
