"""Torch's average pooling as `Int8AvgPool` computes it, in float, for training."""

from __future__ import annotations

import functools

from torch import Tensor, nn

from ..pool import AVERAGES
from .quantize import FakeQuantize


class FakeQuantizedAvgPool(nn.Module):
    """What all have in common, before the float class: a fake-quantized input."""

    input_fake_quantize: FakeQuantize

    def forward(self, input: Tensor) -> Tensor:
        """float `[batch, channels, ...]`, or without the batch, as the float module."""
        axes = next(axes for kind, axes in AVERAGES.items() if isinstance(self, kind))
        rows = input.movedim(-axes - 1, -1)  # as calibration sees them: channels last
        return super().forward(self.input_fake_quantize(input, rows))


@functools.cache
def _fake(base: type[nn.Module]) -> type[nn.Module]:
    members = {"__module__": __name__, "__doc__": f"`nn.{base.__name__}` on a fake-quantized input."}
    return type(f"FakeQuantized{base.__name__}", (FakeQuantizedAvgPool, base), members)


FakeQuantizedAvgPool1d = _fake(nn.AvgPool1d)
FakeQuantizedAvgPool2d = _fake(nn.AvgPool2d)
FakeQuantizedAdaptiveAvgPool1d = _fake(nn.AdaptiveAvgPool1d)
FakeQuantizedAdaptiveAvgPool2d = _fake(nn.AdaptiveAvgPool2d)


def fake_quantize_pool(module: nn.Module, fake_quantize: FakeQuantize) -> None:
    """Make a float module compute as its INT8 counterpart will, in place: same object, a subclass of its class."""
    module.__class__ = _fake(type(module))  # type: ignore[arg-type]
    module.input_fake_quantize = fake_quantize.train(module.training)


def unfake_pool(module: nn.Module) -> None:
    """The inverse of `fake_quantize_pool`."""
    del module.input_fake_quantize
    module.__class__ = type(module).__bases__[1]
