"""`Int8MatMul`, `Int8Add`, `Int8Cat`: calls of `torch.matmul`, `torch.add` and `torch.cat` on INT8."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import Int8Module
from .gradient import straight_through, wants_gradients
from .quantize_input import quantize_static

MATMUL = "matmul"
ADD = "add"
CAT = "cat"
CALLS = (MATMUL, ADD, CAT)
"""Ops without a weight that are sites by the place of their call."""


class FloatCall(nn.Module):
    """A call in float."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.op = op

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As torch's function."""
        return getattr(torch, self.op)(*args, **kwargs)


class Int8Call(Int8Module):
    """What the three share: one static scale and zero point for each input; stored: `input0_scale` float32 `[]`, `input0_zero_point` int32 `[]`, ...

    Args:
        inputs_quantized: of each input, whether it is quantized; the others stay float.
        output_quantized: whether the result is rounded, to `output_scale` and `output_zero_point`; of sums and
            concatenations alone. It is float32 then; in captured blocks it is uint8.
    """

    output_scale: Tensor
    output_zero_point: Tensor

    def __init__(self, inputs_quantized: Sequence[bool], output_quantized: bool = False) -> None:
        super().__init__()
        self.inputs_quantized = list(inputs_quantized)
        self.output_quantized = output_quantized
        for i, quantized in enumerate(self.inputs_quantized):
            self._qparam_buffers((f"input{i}_scale", f"input{i}_zero_point"), quantized)
        self._qparam_buffers(("output_scale", "output_zero_point"), output_quantized)

    def set_qparams(self, name: str, scale: float, zero_point: int) -> None:
        """Set the scale and zero point, on uint8, of `input0`, `input1`, ... or `output`."""
        setattr(self, f"{name}_scale", torch.tensor(scale))
        setattr(self, f"{name}_zero_point", torch.tensor(zero_point, dtype=torch.int32))

    def qparams(self, i: int) -> tuple[Tensor, Tensor]:
        """Scale and zero point of input `i`."""
        return getattr(self, f"input{i}_scale"), getattr(self, f"input{i}_zero_point")

    def round(self, x: Tensor, i: int) -> Tensor:
        """`x` rounded as input `i`, in float32."""
        return _round_straight_through(x, self.qparams(i)) if self.inputs_quantized[i] else x

    def round_output(self, y: Tensor) -> Tensor:
        """`y` rounded as the result, in float32."""
        if not self.output_quantized:
            return y
        return _round_straight_through(y, (self.output_scale, self.output_zero_point))

    def extra_repr(self) -> str:
        """What `print` shows."""
        inputs = ", ".join("INT8" if quantized else "FP32" for quantized in self.inputs_quantized)
        return f"{inputs} -> INT8" if self.output_quantized else inputs


def _round_straight_through(x: Tensor, qparams: tuple[Tensor, Tensor]) -> Tensor:
    if wants_gradients(x):
        return straight_through(lambda x: _round(x, qparams), Tensor.float, x)
    return _round(x, qparams)


def _round(x: Tensor, qparams: tuple[Tensor, Tensor]) -> Tensor:
    return torch.ops.optimum_int8.dequantize(quantize_static(x, *qparams), *qparams)


class Int8MatMul(Int8Call):
    """`torch.matmul` and `torch.bmm` of two activations; the second has zero point 128. See `numerics.matmul`."""

    def forward(self, input: Tensor, other: Tensor) -> Tensor:
        """float `[..., M, K]` by `[..., K, N]` to `[..., M, N]`, in the first one's dtype."""
        if wants_gradients(input, other):
            return straight_through(self._compute, torch.matmul, input, other)
        return self._compute(input, other)

    def _compute(self, input: Tensor, other: Tensor) -> Tensor:
        qparams = self.qparams(0), self.qparams(1)
        a, b = (quantize_static(x, *given) for x, given in zip((input, other), qparams, strict=True))
        return torch.ops.optimum_int8.matmul(a, *qparams[0], b, qparams[1][0]).to(input.dtype)


class Int8Add(Int8Call):
    """`torch.add` of two quantized activations; see `numerics.add`. The float sum is quantized as its reader wants it."""

    def forward(self, input: Tensor, other: Tensor) -> Tensor:
        """As `input + other`."""
        if all(self.inputs_quantized) and not wants_gradients(input, other):
            qparams = self.qparams(0), self.qparams(1)
            x, y = (quantize_static(v, *given) for v, given in zip((input, other), qparams, strict=True))
            total = torch.ops.optimum_int8.add(x, *qparams[0], y, *qparams[1])
        else:
            total = self.round(input, 0) + self.round(other, 1)
        return self.round_output(total).to(torch.result_type(input, other))


class Int8Cat(Int8Call):
    """`torch.cat` of quantized activations."""

    def forward(self, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
        """As `torch.cat`."""
        dtype = functools.reduce(torch.promote_types, [x.dtype for x in tensors])
        return self.round_output(torch.cat([self.round(x, i) for i, x in enumerate(tensors)], dim)).to(dtype)


def fits_call(op: str, args: Sequence[Any], kwargs: Any) -> bool:
    """Whether the modules know a call: of float tensors, two matrices or more axes, nothing but `dim` besides them."""
    if op == CAT:
        tensors = args[0] if args else kwargs.get("tensors")
        known = isinstance(tensors, (list, tuple)) and not kwargs.keys() - {"dim", "tensors"}
        return known and all(isinstance(x, Tensor) and x.is_floating_point() for x in tensors)
    if kwargs or len(args) != 2 or not all(isinstance(x, Tensor) and x.is_floating_point() for x in args):
        return False
    return op == ADD or all(x.dim() >= 2 for x in args)


INT8_CALLS: dict[str, type[Int8Call]] = {MATMUL: Int8MatMul, ADD: Int8Add, CAT: Int8Cat}
