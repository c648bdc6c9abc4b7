"""Convolutions over three axes whose kernel moves by its own size: patch embeddings of video models."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..config import Int8Config
from ..nn.conv3d import Int8Conv3d, conv3d_obstacle
from ..nn.fake import FakeQuantize, fake_quantize_conv, unfake_conv
from .kind import SiteKind
from .rows import channels_last
from .settings import FakeQuantization, Quantization, Storage
from .weights import computed_weight

CONV3D = "conv3d"


class Conv3dKind(SiteKind[nn.Conv3d]):
    """One uint8 input, an INT8 weight; a linear on patches."""

    name = CONV3D
    holds_weights = True
    loads_by_weight = True
    corrects_bias = True
    float_in_training = ""

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, nn.Conv3d)

    def obstacle(self, name: str, module: nn.Conv3d, config: Int8Config) -> str:
        """A weight that follows from others, and what `conv3d_obstacle` finds."""
        return computed_weight(module) or conv3d_obstacle(module)

    def rows(self, module: nn.Conv3d, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """See `SiteKind`."""
        return {"input": channels_last(module, inputs[0])}

    def output_rows(self, module: nn.Conv3d, output: Tensor) -> Tensor:
        """See `SiteKind`."""
        return channels_last(module, output)

    def from_float(self, module: nn.Conv3d, how: Quantization) -> Int8Conv3d:
        """See `SiteKind`."""
        return Int8Conv3d.from_float(module, how.input_range, how.per_channel, activation_bits=how.activation_bits)

    def empty(self, module: nn.Module, how: Storage) -> Int8Conv3d | None:
        """See `SiteKind`."""
        if isinstance(module, nn.Conv3d):
            return Int8Conv3d.like(module, how.static, how.activation_bits)
        return None

    def fake(self, module: nn.Conv3d, how: FakeQuantization) -> None:
        """See `SiteKind`."""
        fake_quantize_conv(module, how.of_input().to(module.weight.device), how.per_channel)

    def fake_quantizers(self, module: Any) -> dict[str, FakeQuantize]:
        """See `SiteKind`."""
        return {"input": module.input_fake_quantize}

    def unfake(self, module: Any) -> None:
        """See `SiteKind`."""
        unfake_conv(module)

    def multiply_adds(self, module: nn.Conv3d, inputs: tuple[Any, ...], output: Tensor) -> int:
        """See `SiteKind`."""
        return output.numel() * module.weight[0].numel()
