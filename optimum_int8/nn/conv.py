"""`Int8Conv1d` and `Int8Conv2d`: `nn.Conv1d` and `nn.Conv2d` on INT8."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from .. import kernels, numerics
from ..numerics import MAX_TAPS, Window
from .base import as_float
from .gradient import straight_through, wants_gradients
from .quantize_input import quantize_images
from .weight import Int8Biased
from .weight_norm import has_weight_norm


class Int8Conv(Int8Biased):
    """What both have in common; images are channels-last inside, `[batch, height, width, channels]`.

    Stored: `weight` int8 `[out, in / groups, *kernel_size, 1]`, `weight_scale` float32 `[out]`, `bias` float32 `[out]` or None, and when
    static `input_scale` float32 `[]`, `input_zero_point` int32 `[]`; dynamic inputs get a scale and zero point per sample. The weight is kept as the
    kernels hold it; reading `weight` gives its float values, of the shape and dtype of the float module's. The trailing axis of the
    stored weight makes a loader that does not know the format fail.
    """

    spatial: ClassVar[int]
    """Axes that the kernel moves over."""

    packed: Tensor
    weight_sum: Tensor
    input_scale: Tensor | None
    input_zero_point: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...] | str,
        dilation: tuple[int, ...],
        groups: int = 1,
        bias: bool = True,
        static: bool = True,
        activation_bits: int = 8,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.activation_bits = activation_bits
        self.dtype = dtype
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.window = _window(kernel_size, stride, padding, dilation)
        shape = (out_channels, in_channels // groups, *kernel_size, 1)
        self._hold(torch.empty(shape, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.empty(out_channels, dtype=torch.float32))
        self._buffers["bias"] = torch.empty(out_channels, dtype=torch.float32) if bias else None
        self._qparam_buffers(("input_scale", "input_zero_point"), static)

    @classmethod
    def like(cls, module: nn.Conv1d | nn.Conv2d, static: bool = True, activation_bits: int = 8) -> Int8Conv:
        """One without values in the place of `module`."""
        made = Int8Conv1d if isinstance(module, nn.Conv1d) else Int8Conv2d
        return made(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
            module.bias is not None,
            static,
            activation_bits,
            module.weight.dtype,
        )

    @classmethod
    def from_float(
        cls,
        module: nn.Conv1d | nn.Conv2d,
        input_range: tuple[float, float] | None = None,
        per_channel: bool = True,
        activation_bits: int = 8,
    ) -> Int8Conv:
        """Quantize an `nn.Conv1d` or `nn.Conv2d`; `input_range` None makes it dynamic."""
        new = cls.like(module, input_range is not None, activation_bits)
        q, new.weight_scale = numerics.quantize_weight(module.weight.flatten(1), per_channel)
        new.weight = q.view(*module.weight.shape, 1)
        if module.bias is not None:
            new.bias = module.bias.detach().to(torch.float32).clone()
        new._set_input_range(input_range, activation_bits)
        new.finish_loading()
        return new.train(module.training)

    @property
    def products_per_row(self) -> int:
        """See `Int8Module`."""
        return self.window.taps * self.in_channels * self.out_channels // self.groups

    def finish_loading(self) -> None:
        """See `Int8Module.finish_loading`."""
        if "weight" not in self._buffers:
            return
        weight = self._buffers.pop("weight").squeeze(-1)  # type: ignore[union-attr]
        weight = weight.unsqueeze(2) if self.spatial == 1 else weight
        packed, weight_sum = kernels.pack_conv(weight, self.groups)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("weight_sum", weight_sum, persistent=False)

    def forward(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        """float `[batch, in, ...]`, or without the batch, to `[batch, out, ...]` in the input's dtype. `bias` is one that the caller holds, of a
        convolution without its own."""
        if input.dim() == self.spatial + 1:
            return self.forward(input.unsqueeze(0), bias).squeeze(0)
        if wants_gradients(input, bias):
            return straight_through(self._compute, self._in_float, input, bias)
        return self._compute(input, bias)

    def _in_float(self, x: Tensor, bias: Tensor | None) -> Tensor:
        bias = self._buffers["bias"] if bias is None else bias
        options = (self.stride, self.padding, self.dilation, self.groups)
        function: Any = functional.conv1d if self.spatial == 1 else functional.conv2d
        return function(x, self.dequantize().to(x.dtype), None if bias is None else bias.to(x.dtype), *options)

    def _compute(self, x: Tensor, bias: Tensor | None) -> Tensor:
        image = x.unsqueeze(2) if self.spatial == 1 else x
        rows = image.permute(0, 2, 3, 1)
        q, scale, zero_point = quantize_images(rows, self.input_scale, self.input_zero_point, self.activation_bits)
        bias = self._buffers["bias"] if bias is None else as_float(bias)
        weight = self.packed, self.weight_sum, self.weight_scale, bias
        y = torch.ops.optimum_int8.conv(q, scale, zero_point, *weight, list(self.window), self.groups)
        y = y.permute(0, 3, 1, 2)
        return (y.squeeze(2) if self.spatial == 1 else y).to(x.dtype)

    def quantized_weight(self) -> Tensor:
        """The weight as it is stored: int8 `[out, in / groups, *kernel_size, 1]`."""
        stored = self._buffers.get("weight")
        if stored is not None:
            return stored
        shape = (self.out_channels, self.in_channels // self.groups)
        weight = kernels.unpack_conv(self.packed, *shape, self.groups, (self.window.height, self.window.width))
        return weight.view(*shape, *self.kernel_size, 1)

    def float_shape(self) -> tuple[int, ...]:
        """Shape of the float weight."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def int8_storage(self) -> Tensor:
        """What the kernels read."""
        return self.packed

    def release(self) -> None:
        """See `Int8Weighted.release`."""
        if "packed" in self._buffers:
            weight = self.quantized_weight()
            del self._buffers["packed"], self._buffers["weight_sum"]
            self._hold(weight)

    def extra_repr(self) -> str:
        """What `print` shows."""
        kind = "dynamic" if self.input_scale is None else "static"
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{text}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}, {kind}"


class Int8Conv1d(Int8Conv):
    """`nn.Conv1d` on INT8; see `Int8Conv`."""

    spatial = 1


class Int8Conv2d(Int8Conv):
    """`nn.Conv2d` on INT8; see `Int8Conv`."""

    spatial = 2


def conv_obstacle(module: nn.Conv1d | nn.Conv2d) -> str:
    """Why an INT8 module in place of `module` would not compute the same, or nothing."""
    cls = parametrize.type_before_parametrizations(module)
    if cls not in (nn.Conv1d, nn.Conv2d):
        return f"{cls.__name__} is a convolution with a forward of its own"
    if "weight" not in module._parameters and not has_weight_norm(module):
        return "its weight is computed from others"
    if module.padding_mode != "zeros":
        return f"padding_mode is {module.padding_mode!r}; INT8 convolutions pad with zeros"
    taps = math.prod(module.kernel_size)
    inner = taps * module.in_channels // module.groups
    if inner > numerics.MAX_REDUCTION:
        return f"{inner} products per sum can overflow int32; at most {numerics.MAX_REDUCTION}"
    if (
        kernels.is_depthwise(module.out_channels, module.in_channels // module.groups, module.groups)
        and taps > MAX_TAPS
    ):
        return f"a depthwise kernel of {taps} taps; at most {MAX_TAPS}"
    return ""


def _window(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...] | str, dilation: tuple[int, ...]
) -> Window:
    """As torch pads: `"same"` adds the odd pixel of padding at the end."""
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(0, 0)] * len(kernel) if padding == "valid" else [(int(p), int(p)) for p in padding]
    if len(kernel) == 1:
        kernel = (1, *kernel)
        stride = (1, *stride)
        dilation = (1, *dilation)
        pads = [(0, 0), *pads]
    height, width = kernel
    stride_y, stride_x = stride
    (top, bottom), (left, right) = pads
    return Window(height, width, stride_y, stride_x, top, left, bottom, right, *dilation)
