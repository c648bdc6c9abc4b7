"""Linears: uint8 activations by packed int8 weights, to float32 or to uint8."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows, output_fields
from ..kernels.immediate import Immediate
from ..kernels.packing import unpack
from .registry import IMAGES, ROWS, define, native
from .roles import LINEAR, Quantizing
from .shapes import byte_rows, like

_ARGUMENTS = (
    "Tensor x, Tensor scale, Tensor zero_point, Tensor panels, Tensor weight_sum, Tensor weight_scale, Tensor? bias, "
    "str activation"
)


def linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    activation: str = "none",
) -> Tensor:
    """uint8 `[..., K]` by a packed weight to float32 `[..., N]`; see `numerics.linear`."""
    if not native(x):
        return _define_linear(x, scale, zero_point, panels, weight_sum, weight_scale, bias, activation)
    e = Immediate(x.shape[:-1])
    inputs = e.input(x), e.scalars(scale), e.scalars(zero_point)
    return e.run(_emit_linear(e, *inputs, panels, weight_sum, weight_scale, bias, activation))


def _define_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    activation: str = "none",
) -> Tensor:
    weight = unpack(panels, weight_scale.shape[0], x.shape[-1])
    return numerics.linear(x, scale, zero_point, weight, weight_scale, bias, activation)


def _append(
    e: Emission,
    out: Rows,
    x: Rows,
    scale: Tensor | Rows,
    zero_point: Tensor | Rows,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    activation: str,
    **fields: object,
) -> Rows:
    inputs = [x.value]
    if isinstance(scale, Rows) and isinstance(zero_point, Rows):
        inputs += [scale.value, zero_point.value]
    else:
        fields |= {"input_scale": float(scale), "input_zero_point": int(zero_point)}  # type: ignore[arg-type]
    if bias is not None:
        fields["bias"] = bias
    fields |= {"weight": panels, "weight_sum": weight_sum, "weight_scale": weight_scale, "activation": activation}
    e.program.add("linear", inputs, [out.value], columns=out.columns, reduction=x.columns, **fields)
    return out


def _emit_linear(  # type: ignore[no-untyped-def]
    e: Emission, x: Rows, scale, zero_point, panels, weight_sum, weight_scale, bias, activation="none"
) -> Rows:
    out = e.new(weight_scale.shape[0], torch.float32)
    return _append(e, out, x, scale, zero_point, panels, weight_sum, weight_scale, bias, activation)


def _fake_linear(
    x: Tensor, scale: Any, zero_point: Any, panels: Any, weight_sum: Any, weight_scale: Tensor, *rest: Any, **named: Any
) -> Tensor:
    return like(x, *x.shape[:-1], weight_scale.shape[0])


define(
    "linear",
    f"({_ARGUMENTS}='none') -> Tensor",
    compute=linear,
    definition=_define_linear,
    fake=_fake_linear,
    emit=_emit_linear,
    domains=(ROWS, IMAGES),
    values=("x", "scale", "zero_point"),
    role=LINEAR,
)


def linear_quantized(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    activation: str,
    output_scale: Tensor,
    output_zero_point: Tensor,
) -> Tensor:
    """`linear`, then `quantize` with one scale for the tensor or (`output_scale` `[N]`) for each column."""
    if not native(x):
        y = _define_linear(x, scale, zero_point, panels, weight_sum, weight_scale, bias, activation)
        return numerics.quantize_affine(y, output_scale, output_zero_point)
    e = Immediate(x.shape[:-1])
    inputs = e.input(x), e.scalars(scale), e.scalars(zero_point)
    weight = panels, weight_sum, weight_scale, bias
    return e.run(_emit_linear_quantized(e, *inputs, *weight, activation, output_scale, output_zero_point))


def _define_linear_quantized(*linear_arguments: Any) -> Tensor:
    *inputs, output_scale, output_zero_point = linear_arguments
    return numerics.quantize_affine(_define_linear(*inputs), output_scale, output_zero_point)


def _emit_linear_quantized(  # type: ignore[no-untyped-def]
    e: Emission,
    x: Rows,
    scale,
    zero_point,
    panels,
    weight_sum,
    weight_scale,
    bias,
    activation,
    output_scale,
    output_zero_point,
) -> Rows:
    out = e.new(weight_scale.shape[0], torch.uint8)
    fields = output_fields(output_scale, output_zero_point)
    return _append(e, out, x, scale, zero_point, panels, weight_sum, weight_scale, bias, activation, **fields)


def _fake_linear_quantized(
    x: Tensor, scale: Any, zero_point: Any, panels: Any, weight_sum: Any, weight_scale: Tensor, *rest: Any, **named: Any
) -> Tensor:
    return byte_rows(x, *x.shape[:-1], weight_scale.shape[0])


define(
    "linear_quantized",
    f"({_ARGUMENTS}, Tensor output_scale, Tensor output_zero_point) -> Tensor",
    compute=linear_quantized,
    definition=_define_linear_quantized,
    fake=_fake_linear_quantized,
    emit=_emit_linear_quantized,
    domains=(ROWS, IMAGES),
    values=("x", "scale", "zero_point"),
    form=Quantizing("linear"),
)
