"""`Int8Conv3d`: an `nn.Conv3d` whose kernel moves by its own size, as the patch embeddings of video models are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .. import numerics
from .linear import Int8Linear


class Int8Conv3d(Int8Linear):
    """Each patch of `[in, *kernel_size]` values is a row of a linear; dynamic inputs get a scale and zero point per patch.

    Stored as an `Int8Linear` stores: `weight` int8 `[out, in * taps, 1]`. Reading `weight` gives the float kernel
    `[out, in, *kernel_size]`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        bias: bool = True,
        static: bool = True,
        activation_bits: int = 8,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(in_channels * math.prod(kernel_size), out_channels, bias, static, activation_bits, dtype)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = tuple(kernel_size)

    @classmethod
    def like(cls, module: nn.Module, static: bool = True, activation_bits: int = 8) -> Int8Conv3d:
        """One without values in the place of an `nn.Conv3d`."""
        assert isinstance(module, nn.Conv3d)
        sizes = module.in_channels, module.out_channels, module.kernel_size
        return cls(*sizes, module.bias is not None, static, activation_bits, module.weight.dtype)

    def forward(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        """float `[batch, in, depth, height, width]`, or without the batch, to `[batch, out, ...]` in the input's dtype: what is left beyond the
        last whole patch is not read."""
        if input.dim() == 4:
            return self.forward(input.unsqueeze(0), bias).squeeze(0)
        return super().forward(self._patches(input), bias).permute(0, 4, 1, 2, 3)

    def _patches(self, x: Tensor) -> Tensor:
        """`[batch, in, depth, height, width]` as `[batch, patches deep, high, wide, in * taps]`."""
        depth, height, width = self.kernel_size
        deep = x.shape[2] // depth
        high = x.shape[3] // height
        wide = x.shape[4] // width
        whole = x[:, :, : deep * depth, : high * height, : wide * width]
        split = whole.reshape(x.shape[0], self.in_channels, deep, depth, high, height, wide, width)
        return split.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)

    def dequantize(self) -> Tensor:
        """See `Int8Weighted.dequantize`."""
        return super().dequantize().view(self.float_shape())

    def float_shape(self) -> tuple[int, ...]:
        """Shape of the float weight."""
        return (self.out_channels, self.in_channels, *self.kernel_size)

    def extra_repr(self) -> str:
        """What `print` shows."""
        kind = "dynamic" if self.input_scale is None else "static"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.kernel_size}, {kind}"


def conv3d_obstacle(module: nn.Conv3d) -> str:
    """Why an `Int8Conv3d` in place of `module` would not compute the same, or nothing."""
    if type(module) is not nn.Conv3d:
        return f"{type(module).__name__} is a convolution with a forward of its own"
    touching = module.stride == module.kernel_size and module.padding in ("valid", (0, 0, 0))
    if not touching or module.groups != 1:
        return "a convolution over three axes has an INT8 form only where its patches touch each other and nothing else"
    if any(d > 1 and k > 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)):
        return "a convolution over three axes has no INT8 form with dilation"
    inner = math.prod(module.weight.shape[1:])
    if inner > numerics.MAX_REDUCTION:
        return f"{inner} products per sum can overflow int32; at most {numerics.MAX_REDUCTION}"
    return ""
