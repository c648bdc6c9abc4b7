"""Convolutions over one and two axes, and bare parameters that `F.conv1d` and `F.conv2d` read."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor, nn

from ..config import Int8Config
from ..nn.base import Int8Module
from ..nn.conv import Int8Conv, conv_obstacle
from ..nn.fake import FakeQuantize, fake_quantize_conv, unfake_conv
from ..nn.weight_norm import has_weight_norm
from .kind import SiteKind
from .rows import channels_last
from .settings import FakeQuantization, Quantization, RecipeEntry, RecipeTraits, Storage
from .weights import computed_weight, set_weight_scales

CONV = "conv"

C = TypeVar("C", nn.Conv1d | nn.Conv2d, nn.Conv3d)


class ConvolutionKind(SiteKind[C]):
    """What convolutions have in common: one uint8 input, an INT8 weight; channels before positions."""

    holds_weights = True
    loads_by_weight = True
    corrects_bias = True
    float_in_training = ""

    def rows(self, module: C, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """See `SiteKind`."""
        return {"input": channels_last(module, inputs[0])}

    def output_rows(self, module: C, output: Tensor) -> Tensor:
        """See `SiteKind`."""
        return channels_last(module, output)

    def fake(self, module: C, how: FakeQuantization) -> None:
        """See `SiteKind`."""
        fake_quantize_conv(module, how.of_input().to(module.weight.device), how.per_channel)

    def fake_quantizers(self, module: Any) -> dict[str, FakeQuantize]:
        """See `SiteKind`."""
        return {"input": module.input_fake_quantize}

    def unfake(self, module: Any) -> None:
        """See `SiteKind`."""
        unfake_conv(module)

    def multiply_adds(self, module: C, inputs: tuple[Any, ...], output: Tensor) -> int:
        """See `SiteKind`."""
        return output.numel() * module.weight[0].numel()


class ConvKind(ConvolutionKind[nn.Conv1d | nn.Conv2d]):
    """`nn.Conv1d` and `nn.Conv2d`."""

    name = CONV
    recipe = RecipeTraits(ops=("conv1d", "conv2d"))

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, (nn.Conv1d, nn.Conv2d))

    def obstacle(self, name: str, module: nn.Conv1d | nn.Conv2d, config: Int8Config) -> str:
        """A weight that follows from others, but for weight norm outside of training, and what `conv_obstacle` finds."""
        folds = config.approach != "qat" and has_weight_norm(module)
        return ("" if folds else computed_weight(module)) or conv_obstacle(module)

    def from_float(self, module: nn.Conv1d | nn.Conv2d, how: Quantization) -> Int8Conv:
        """See `SiteKind`."""
        return Int8Conv.from_float(module, how.input_range, how.per_channel, how.activation_bits)

    def empty(self, module: nn.Module, how: Storage) -> Int8Conv | None:
        """See `SiteKind`."""
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            return Int8Conv.like(module, how.static, how.activation_bits)
        return None

    def from_recipe(self, module: nn.Conv1d | nn.Conv2d, entry: RecipeEntry) -> Int8Module:
        """See `SiteKind`."""
        new = super().from_recipe(module, entry)
        set_weight_scales(new, module.weight, entry)
        return new
