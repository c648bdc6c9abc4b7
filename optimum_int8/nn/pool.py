"""`Int8AvgPool1d` and `Int8AvgPool2d`: torch's average pooling on INT8."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import QuantizationError
from ..numerics import MAX_POSITIONS, Window, pool_window
from .base import Int8Module
from .gradient import wants_gradients
from .quantize_input import quantize_images

AVERAGES: dict[type[nn.Module], int] = {
    nn.AvgPool1d: 1,
    nn.AvgPool2d: 2,
    nn.AdaptiveAvgPool1d: 1,
    nn.AdaptiveAvgPool2d: 2,
}
"""Float modules that can be INT8, with the number of axes that they go over."""


class Int8AvgPool(Int8Module):
    """What both have in common: the mean of a quantized image, in float32; see `numerics.avg_pool`.

    Stored: `input_scale` float32 `[]`, `input_zero_point` int32 `[]`. It is always static: a range per image needs all of the float image
    first, and pooling that is no more work.

    Args:
        window: None takes the mean of the whole image.
        padding_counts: torch's `count_include_pad`.
    """

    spatial: ClassVar[int]
    """Axes that the window moves over."""

    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, window: Window | None, padding_counts: bool = False, activation_bits: int = 8) -> None:
        super().__init__()
        self.window = window
        self.padding_counts = padding_counts
        self.activation_bits = activation_bits
        self._qparam_buffers(("input_scale", "input_zero_point"), True)

    @classmethod
    def like(cls, module: nn.Module, activation_bits: int = 8) -> Int8AvgPool:
        """One without values in the place of `module`, which has no `pool_obstacle`."""
        made = Int8AvgPool1d if AVERAGES[type(module)] == 1 else Int8AvgPool2d
        return made(average_window(module), getattr(module, "count_include_pad", False), activation_bits)

    @classmethod
    def from_float(cls, module: nn.Module, input_range: tuple[float, float], activation_bits: int = 8) -> Int8AvgPool:
        """Quantize one of `AVERAGES`."""
        new = cls.like(module, activation_bits)
        new._set_input_range(input_range, activation_bits)
        return new.train(module.training)

    def forward(self, input: Tensor) -> Tensor:
        """float `[batch, channels, ...]`, or without the batch, as the float module."""
        if input.dim() == self.spatial + 1:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        if wants_gradients(input):
            raise QuantizationError(
                "the input of an INT8 average pooling requires a gradient, which it does not compute; call the model under "
                "torch.no_grad(), or exclude the pooling"
            )
        rows = (input.unsqueeze(2) if self.spatial == 1 else input).permute(0, 2, 3, 1)
        q, *qparams = quantize_images(rows, self.input_scale, self.input_zero_point, self.activation_bits)
        window = None if self.window is None else list(self.window)
        y = torch.ops.optimum_int8.avg_pool(q, *qparams, window, self.padding_counts).permute(0, 3, 1, 2)
        return (y.squeeze(2) if self.spatial == 1 else y).to(input.dtype)

    def extra_repr(self) -> str:
        """What `print` shows."""
        if self.window is None:
            return "whole image, static"
        w = self.window
        size = f"kernel_size={(w.height, w.width)}, stride={(w.stride_y, w.stride_x)}, padding={(w.top, w.left)}"
        return f"{size}, padding_counts={self.padding_counts}, static"


class Int8AvgPool1d(Int8AvgPool):
    """`nn.AvgPool1d` and `nn.AdaptiveAvgPool1d(1)` on INT8; see `Int8AvgPool`."""

    spatial = 1


class Int8AvgPool2d(Int8AvgPool):
    """`nn.AvgPool2d` and `nn.AdaptiveAvgPool2d(1)` on INT8; see `Int8AvgPool`."""

    spatial = 2


def average_window(module: nn.Module) -> Window | None:
    """The window of one of `AVERAGES`; None is the whole image, and also that of a module with a `pool_obstacle`."""
    if isinstance(module, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)):
        return None
    pool: Any = module
    axes = AVERAGES[type(module)]
    return pool_window(pool.kernel_size, pool.stride, pool.padding, ceil_mode=bool(pool.ceil_mode), axes=axes)


def pool_obstacle(module: nn.Module) -> str:
    """Why an INT8 module in place of `module` would not compute the same, or nothing."""
    if type(module) not in AVERAGES:
        return f"{type(module).__name__} is an average pooling with a forward of its own"
    if isinstance(module, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)):
        size: Any = module.output_size
        whole = all(s == 1 for s in size) if isinstance(size, (list, tuple)) else size == 1
        return "" if whole else f"its output size is {size}; INT8 takes the mean of the whole image"
    if getattr(module, "divisor_override", None) is not None:
        return "it has a divisor of its own"
    window = average_window(module)
    if window is None:
        return "with ceil_mode its last window depends on the size of the image"
    if window.taps > MAX_POSITIONS:
        return f"a window of {window.taps} positions can overflow int32; at most {MAX_POSITIONS}"
    return ""
