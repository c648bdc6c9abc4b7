"""Average poolings of static models."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ..config import Int8Config
from ..nn.fake import FakeQuantize, fake_quantize_pool, unfake_pool
from ..nn.pool import AVERAGES, Int8AvgPool, average_window, pool_obstacle
from .kind import SiteKind
from .rows import channels_last
from .settings import Calibrated, FakeQuantization, Quantization, RecipeTraits, Storage, Verdict

POOL = "pool"

POOLS = ("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d")
"""Ops of modules only: a pooling function has no quantization parameters."""


class PoolKind(SiteKind[nn.Module]):
    """One uint8 image, no weight."""

    name = POOL
    recipe = RecipeTraits(ops=POOLS, optional=True)
    float_in_training = ""

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, tuple(AVERAGES))

    def obstacle(self, name: str, module: nn.Module, config: Int8Config) -> str:
        """A dynamic model, and what `pool_obstacle` finds."""
        dynamic = "a dynamic model pools the float values that the range of an image would be taken from"
        return dynamic if config.approach == "dynamic" else pool_obstacle(module)

    def rows(self, module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """See `SiteKind`."""
        return {"input": channels_last(module, inputs[0])}

    def output_rows(self, module: nn.Module, output: Tensor) -> Tensor:
        """See `SiteKind`."""
        return channels_last(module, output)

    def counts_tokens(self, config: Int8Config) -> bool:
        """Pixels, where outliers among them are spared."""
        return config.spares_tokens

    def judge(self, site: Calibrated) -> Verdict:
        """FP32 where the pixels would lose more than `max_lost_bits` to outliers. The mean of n pixels has the rounding error of one divided
        by the root of n, which gives bits back."""
        if site.max_lost_bits is None or "input" not in site.tokens:
            return Verdict()
        window = average_window(site.module)
        seen = site.tokens["input"]
        pixels = window.taps if window else max(seen.tokens / seen.examples, 1.0)
        if seen.lost_bits(*site.ranges["input"]) > site.max_lost_bits + math.log2(pixels) / 2:
            return Verdict(reason="a few outliers among the pixels would cost the others more than max_lost_bits")
        return Verdict()

    def from_float(self, module: nn.Module, how: Quantization) -> Int8AvgPool:
        """See `SiteKind`."""
        assert how.input_range is not None  # see `obstacle`
        return Int8AvgPool.from_float(module, how.input_range, how.activation_bits)

    def empty(self, module: nn.Module, how: Storage) -> Int8AvgPool | None:
        """See `SiteKind`."""
        return Int8AvgPool.like(module, how.activation_bits) if how.static and not pool_obstacle(module) else None

    def fake(self, module: nn.Module, how: FakeQuantization) -> None:
        """See `SiteKind`."""
        fake_quantize_pool(module, how.of_input().to(how.device))

    def fake_quantizers(self, module: Any) -> dict[str, FakeQuantize]:
        """See `SiteKind`."""
        return {"input": module.input_fake_quantize}

    def unfake(self, module: Any) -> None:
        """See `SiteKind`."""
        unfake_pool(module)
