"""Gated activations: `activation(gate) * up`, and what quantizes the product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows, output_fields
from ..kernels.immediate import Immediate
from .quantization import quantize, quantize_rows
from .registry import ROWS, as_float, define, native
from .roles import PER_ROW, Quantizing
from .shapes import byte_rows, like, same_shape

_ARGUMENTS = "Tensor gate, Tensor up, str activation"
_VALUES = ("gate", "up")


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """`activation(gate) * up` of two float `[..., K]`; see `numerics.gated`."""
    if not native(gate, up):
        return numerics.gated(as_float(gate), as_float(up), activation)
    e = Immediate(gate.shape[:-1])
    return e.run(_emit_gated(e, e.input(as_float(gate)), e.input(as_float(up)), activation))


def _append(e: Emission, outs: list[int], gate: Rows, up: Rows, activation: str, **fields: Any) -> None:
    fields |= {"activation": activation, "column": [gate.column, up.column]}
    e.program.add("gated", [gate.value, up.value], outs, columns=gate.columns, **fields)


def _emit_gated(e: Emission, gate: Rows, up: Rows, activation: str) -> Rows:
    out = e.new(gate.columns, torch.float32)
    _append(e, [out.value], gate, up, activation)
    return out


define(
    "gated",
    f"({_ARGUMENTS}) -> Tensor",
    compute=gated,
    definition=numerics.gated,
    fake=same_shape,
    emit=_emit_gated,
    domains=(ROWS,),
    values=_VALUES,
    columns=_VALUES,
)


def gated_quantized(gate: Tensor, up: Tensor, activation: str, scale: Tensor, zero_point: Tensor) -> Tensor:
    """`gated`, quantized with the scale and zero point of the tensor."""
    return quantize(gated(gate, up, activation), scale, zero_point)


def _define_gated_quantized(gate: Tensor, up: Tensor, activation: str, scale: Tensor, zero_point: Tensor) -> Tensor:
    return numerics.quantize_affine(numerics.gated(gate, up, activation), scale, zero_point)


def _emit_gated_quantized(
    e: Emission, gate: Rows, up: Rows, activation: str, scale: Tensor, zero_point: Tensor
) -> Rows:
    out = e.new(gate.columns, torch.uint8)
    _append(e, [-1, out.value], gate, up, activation, **output_fields(scale, zero_point))
    return out


define(
    "gated_quantized",
    f"({_ARGUMENTS}, Tensor scale, Tensor zero_point) -> Tensor",
    compute=gated_quantized,
    definition=_define_gated_quantized,
    fake=lambda gate, *rest, **named: byte_rows(gate, *gate.shape),
    emit=_emit_gated_quantized,
    domains=(ROWS,),
    values=_VALUES,
    columns=_VALUES,
    form=Quantizing("gated"),
)


def gated_quantized_rows(gate: Tensor, up: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    """`gated`, quantized per row."""
    return quantize_rows(gated(gate, up, activation))


def _define_gated_quantized_rows(gate: Tensor, up: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    return numerics.quantize_rows(numerics.gated(gate, up, activation))


def _emit_gated_quantized_rows(e: Emission, gate: Rows, up: Rows, activation: str) -> tuple[Rows, Rows, Rows]:
    out = e.new(gate.columns, torch.uint8), e.new(1, torch.float32), e.new(1, torch.int32)
    _append(e, [-1, *[rows.value for rows in out]], gate, up, activation)
    return out


def _fake_gated_quantized_rows(gate: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows = gate.shape[:-1]
    return byte_rows(gate, *gate.shape), like(gate, *rows), like(gate, *rows, dtype=torch.int32)


define(
    "gated_quantized_rows",
    f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
    compute=gated_quantized_rows,
    definition=_define_gated_quantized_rows,
    fake=_fake_gated_quantized_rows,
    emit=_emit_gated_quantized_rows,
    domains=(ROWS,),
    values=_VALUES,
    columns=_VALUES,
    form=Quantizing("gated", PER_ROW),
)
