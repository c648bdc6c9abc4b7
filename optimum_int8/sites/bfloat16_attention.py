"""Attention cores that `Int8Config.attention` sets to bfloat16."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..config import Int8Config
from ..nn.attention import uses_attention_interface
from ..nn.bfloat16_attention import Bfloat16Attention
from ..nn.fake import FAKE_CHILD
from .attention import CoreKind, is_core
from .settings import FakeQuantization, Quantization, Storage

BFLOAT16_ATTENTION = "attention_bfloat16"


class Bfloat16AttentionKind(CoreKind):
    """It holds no quantization parameters and needs no ranges."""

    name = BFLOAT16_ATTENTION
    inputs = ()
    is_int8 = False
    needs_ranges = False

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """Where `config` sets cores to bfloat16."""
        return config.attention == "bfloat16" and is_core(module)

    def obstacle(self, name: str, module: nn.Module, config: Int8Config) -> str:
        """What `config` says of cores."""
        return "its core is excluded by name" if name in config.exclude_attention else ""

    def rows(self, module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """None: nothing is quantized."""
        return {}

    def from_float(self, module: nn.Module, how: Quantization) -> Bfloat16Attention:
        """See `SiteKind`."""
        return Bfloat16Attention()

    def empty(self, module: nn.Module, how: Storage) -> Bfloat16Attention | None:
        """See `SiteKind`."""
        return Bfloat16Attention() if uses_attention_interface(module) else None

    def fake(self, module: nn.Module, how: FakeQuantization) -> None:
        """The core itself: it is differentiable."""
        module.add_module(FAKE_CHILD, Bfloat16Attention().train(module.training))
