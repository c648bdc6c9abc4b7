"""Convolutions over three axes whose kernel moves by its own size: patch embeddings of video models."""

from __future__ import annotations

from torch import nn

from ..config import Int8Config
from ..nn.conv3d import Int8Conv3d, conv3d_obstacle
from ..nn.linear import Int8Linear
from .conv import ConvolutionKind
from .settings import Quantization, Storage
from .weights import computed_weight

CONV3D = "conv3d"


class Conv3dKind(ConvolutionKind[nn.Conv3d]):
    """A linear on patches."""

    name = CONV3D

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, nn.Conv3d)

    def obstacle(self, name: str, module: nn.Conv3d, config: Int8Config) -> str:
        """A weight that follows from others, and what `conv3d_obstacle` finds."""
        return computed_weight(module) or conv3d_obstacle(module)

    def from_float(self, module: nn.Conv3d, how: Quantization) -> Int8Linear:
        """See `SiteKind`."""
        return Int8Conv3d.from_float(module, how.input_range, how.per_channel, activation_bits=how.activation_bits)

    def empty(self, module: nn.Module, how: Storage) -> Int8Conv3d | None:
        """See `SiteKind`."""
        if isinstance(module, nn.Conv3d):
            return Int8Conv3d.like(module, how.static, how.activation_bits)
        return None
