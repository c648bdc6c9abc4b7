"""Linears: `nn.Linear` and Transformers' `Conv1D`, and bare parameters that `F.linear` reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .. import numerics
from ..config import Int8Config
from ..nn.base import Int8Module
from ..nn.embedding import Int8Embedding
from ..nn.fake import FakeQuantize, fake_quantize_linear, unfake_linear
from ..nn.linear import Int8Linear, float_weight, linear_obstacle
from .kind import SiteKind
from .settings import Calibrated, FakeQuantization, Quantization, RecipeEntry, RecipeTraits, Storage, Verdict
from .weights import computed_weight, set_weight_scales

LINEAR = "linear"


class LinearKind(SiteKind[nn.Linear | Conv1D]):
    """One uint8 input, an INT8 weight."""

    name = LINEAR
    recipe = RecipeTraits(ops=("linear",))
    holds_weights = True
    loads_by_weight = True
    may_measure_per_token = True
    corrects_bias = True
    searches_weight = True
    float_in_training = ""

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, (nn.Linear, Conv1D))

    def obstacle(self, name: str, module: nn.Linear | Conv1D, config: Int8Config) -> str:
        """A weight that follows from others, sums that can overflow, a `forward` of its own."""
        reason = computed_weight(module)
        if reason:
            return reason
        inner = float_weight(module).shape[1]
        if inner > numerics.MAX_REDUCTION:
            return f"{inner} inputs can overflow int32; at most {numerics.MAX_REDUCTION}"
        return "" if type(module) in (nn.Linear, Conv1D) else linear_obstacle(module)

    def counts_tokens(self, config: Int8Config) -> bool:
        """Where outlier tokens are spared."""
        return config.spares_tokens

    def judge(self, site: Calibrated) -> Verdict:
        """A range per token where the others would lose more than `max_lost_bits` to outliers."""
        if site.max_lost_bits is None or "input" not in site.tokens:
            return Verdict()
        lost = site.tokens["input"].lost_bits(*site.ranges["input"])
        return Verdict(per_token=lost > site.max_lost_bits)

    def from_float(self, module: nn.Linear | Conv1D, how: Quantization) -> Int8Linear:
        """See `SiteKind`."""
        return Int8Linear.from_float(module, how.input_range, how.per_channel, how.weight_scale, how.activation_bits)

    def convert(
        self, model: nn.Module, name: str, make: Callable[[], Int8Module], shared: dict[int, Int8Module]
    ) -> None:
        """A head whose weight is an embedding's shares the INT8 values."""
        weight = model.get_submodule(name).weight
        new = make()
        table = shared.get(id(weight))
        if isinstance(table, Int8Embedding) and isinstance(new, Int8Linear):
            new.tie(table)
        self.install(model, name, new)

    def empty(self, module: nn.Module, how: Storage) -> Int8Linear | None:
        """See `SiteKind`; of whatever has a matrix and a bias."""
        weight: Any = getattr(module, "weight", None)
        if weight is not None and hasattr(module, "bias") and weight.dim() == 2:
            return Int8Linear.like(module, how.static, how.activation_bits)
        return None

    def fake(self, module: nn.Linear | Conv1D, how: FakeQuantization) -> None:
        """See `SiteKind`."""
        fake_quantize_linear(module, how.of_input().to(module.weight.device), how.per_channel)

    def fake_quantizers(self, module: Any) -> dict[str, FakeQuantize]:
        """See `SiteKind`."""
        return {"input": module.input_fake_quantize}

    def unfake(self, module: Any) -> None:
        """See `SiteKind`."""
        unfake_linear(module)

    def multiply_adds(self, module: nn.Linear | Conv1D, inputs: tuple[Any, ...], output: Tensor) -> int:
        """See `SiteKind`."""
        weight: Tensor = module.weight
        return output.numel() * (weight.numel() // output.shape[-1])

    def from_recipe(self, module: nn.Linear | Conv1D, entry: RecipeEntry) -> Int8Module:
        """See `SiteKind`."""
        new = super().from_recipe(module, entry)
        set_weight_scales(new, float_weight(module), entry)
        return new
