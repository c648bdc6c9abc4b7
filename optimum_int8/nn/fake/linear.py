"""`nn.Linear` and `Conv1D` as `Int8Linear` computes them, in float, for training."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from .quantize import FakeQuantize, fake_quantize_weight


class FakeQuantizedLinear(nn.Linear):
    """`nn.Linear` on a fake-quantized input and weight. The parameters stay those of the float module."""

    input_fake_quantize: FakeQuantize
    per_channel: bool

    def forward(self, input: Tensor) -> Tensor:
        """float `[..., in]` to `[..., out]`."""
        weight = fake_quantize_weight(self.weight, self.per_channel)
        return functional.linear(self.input_fake_quantize(input), weight, self.bias)


class FakeQuantizedConv1D(Conv1D):
    """Transformers' `Conv1D`, whose weight is `[in, out]`, likewise."""

    input_fake_quantize: FakeQuantize
    per_channel: bool

    def forward(self, x: Tensor) -> Tensor:
        """float `[..., in]` to `[..., out]`."""
        weight = fake_quantize_weight(self.weight.T, self.per_channel)
        return functional.linear(self.input_fake_quantize(x), weight, self.bias)


def fake_quantize_linear(module: nn.Linear | Conv1D, fake_quantize: FakeQuantize, per_channel: bool = True) -> None:
    """Make a float module compute as its INT8 counterpart will, in place: same object, a subclass of its class."""
    module.__class__ = FakeQuantizedConv1D if isinstance(module, Conv1D) else FakeQuantizedLinear
    module.per_channel = per_channel
    module.input_fake_quantize = fake_quantize.train(module.training)


def unfake_linear(module: FakeQuantizedLinear | FakeQuantizedConv1D) -> None:
    """The inverse of `fake_quantize_linear`."""
    del module.input_fake_quantize, module.per_channel
    module.__class__ = Conv1D if isinstance(module, Conv1D) else nn.Linear  # type: ignore[assignment]
