"""`nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d` as their INT8 modules compute them, in float, for training."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .quantize import FakeQuantize, fake_quantize_weight


class _FakeQuantizedConv(nn.Module):
    """What they have in common. The parameters stay those of the float module."""

    input_fake_quantize: FakeQuantize
    per_channel: bool
    weight: Tensor
    bias: Tensor | None
    kernel_size: tuple[int, ...]
    _conv_forward: Callable[[Tensor, Tensor, Tensor | None], Tensor]

    def forward(self, input: Tensor) -> Tensor:
        """float `[batch, in, ...]`, or without the batch, to `[batch, out, ...]`."""
        rows = input.movedim(-len(self.kernel_size) - 1, -1)  # as calibration sees them: channels last
        weight = fake_quantize_weight(self.weight.flatten(1), self.per_channel).view_as(self.weight)
        return self._conv_forward(self.input_fake_quantize(input, rows), weight, self.bias)


class FakeQuantizedConv1d(_FakeQuantizedConv, nn.Conv1d):
    """`nn.Conv1d` on a fake-quantized input and weight."""


class FakeQuantizedConv2d(_FakeQuantizedConv, nn.Conv2d):
    """`nn.Conv2d` on a fake-quantized input and weight."""


class FakeQuantizedConv3d(_FakeQuantizedConv, nn.Conv3d):
    """`nn.Conv3d` on a fake-quantized input and weight."""


_FAKE: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: FakeQuantizedConv1d,
    nn.Conv2d: FakeQuantizedConv2d,
    nn.Conv3d: FakeQuantizedConv3d,
}


def fake_quantize_conv(
    module: nn.Conv1d | nn.Conv2d | nn.Conv3d, fake_quantize: FakeQuantize, per_channel: bool = True
) -> None:
    """Make a float module compute as its INT8 counterpart will, in place: same object, a subclass of its class."""
    module.__class__ = _FAKE[type(module)]  # type: ignore[assignment]
    module.per_channel = per_channel  # type: ignore[assignment]
    module.input_fake_quantize = fake_quantize.train(module.training)


def unfake_conv(module: FakeQuantizedConv1d | FakeQuantizedConv2d | FakeQuantizedConv3d) -> None:
    """The inverse of `fake_quantize_conv`."""
    del module.input_fake_quantize, module.per_channel
    module.__class__ = next(cls for cls, fake in _FAKE.items() if isinstance(module, fake))  # type: ignore[assignment]
