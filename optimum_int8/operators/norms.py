"""Layer norm and RMS norm with the residual sum before them, and with what quantizes their result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows, output_fields
from ..kernels.immediate import Immediate
from .quantization import quantize, quantize_rows
from .registry import IMAGES, ROWS, as_float, define, native
from .roles import PER_ROW, Quantizing
from .shapes import byte_rows, like, same_shape

_ARGUMENTS = "Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, str kind, float eps"


def norm(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, kind: str, eps: float
) -> Tensor:
    """`x + residual`, then its layer norm or RMS norm (`kind` is a name of `program.NORMS`); see `numerics`."""
    if not native(x):
        return _define_norm(x, residual, weight, bias, kind, eps)
    e = Immediate(x.shape[:-1])
    added = None if residual is None else e.input(as_float(residual))
    return e.run(_emit_norm(e, e.input(as_float(x)), added, weight, bias, kind, eps))


def _define_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, kind: str, eps: float
) -> Tensor:
    y = x if residual is None else x + residual
    if kind == "none":
        return y
    return numerics.layer_norm(y, weight, bias, eps) if kind == "layer_norm" else numerics.rms_norm(y, weight, eps)


def _append(
    e: Emission,
    outs: Sequence[Rows],
    x: Rows,
    residual: Rows | None,
    weight: Tensor | None,
    bias: Tensor | None,
    kind: str,
    eps: float,
    **fields: object,
) -> None:
    inputs = [x.value] if residual is None else [x.value, residual.value]
    fields |= {name: t for name, t in (("weight", weight), ("bias", bias)) if t is not None}
    e.program.add("norm", inputs, [r.value for r in outs], columns=x.columns, kind=kind, epsilon=eps, **fields)


def _emit_norm(e: Emission, x: Rows, residual, weight, bias, kind, eps) -> Rows:  # type: ignore[no-untyped-def]
    out = e.new(x.columns, torch.float32)
    _append(e, [out], x, residual, weight, bias, kind, eps)
    return out


define(
    "norm",
    f"({_ARGUMENTS}) -> Tensor",
    compute=norm,
    definition=_define_norm,
    fake=same_shape,
    emit=_emit_norm,
    domains=(ROWS, IMAGES),
    values=("x", "residual"),
)


def norm_quantized(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    kind: str,
    eps: float,
    scale: Tensor,
    zero_point: Tensor,
) -> tuple[Tensor, Tensor]:
    """`norm`, and its result also quantized with the scale and zero point of the tensor."""
    y = norm(x, residual, weight, bias, kind, eps)
    return y, quantize(y, scale, zero_point)


def _define_norm_quantized(*norm_arguments: Any) -> tuple[Tensor, Tensor]:
    *inputs, scale, zero_point = norm_arguments
    y = _define_norm(*inputs)
    return y, numerics.quantize_affine(y, scale, zero_point)


def _emit_norm_quantized(  # type: ignore[no-untyped-def]
    e: Emission, x: Rows, residual, weight, bias, kind, eps, scale, zero_point
) -> tuple[Rows, Rows]:
    out = e.new(x.columns, torch.float32), e.new(x.columns, torch.uint8)
    _append(e, out, x, residual, weight, bias, kind, eps, **output_fields(scale, zero_point))
    return out


define(
    "norm_quantized",
    f"({_ARGUMENTS}, Tensor scale, Tensor zero_point) -> (Tensor, Tensor)",
    compute=norm_quantized,
    definition=_define_norm_quantized,
    fake=lambda x, *rest, **named: (like(x, *x.shape), byte_rows(x, *x.shape)),
    emit=_emit_norm_quantized,
    domains=(ROWS, IMAGES),
    values=("x", "residual"),
    form=Quantizing("norm", keeps_float=True),
)


def norm_quantized_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, kind: str, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`norm`, and its result also quantized per row."""
    y = norm(x, residual, weight, bias, kind, eps)
    return y, *quantize_rows(y)


def _define_norm_quantized_rows(*norm_arguments: Any) -> tuple[Tensor, ...]:
    y = _define_norm(*norm_arguments)
    return y, *numerics.quantize_rows(y)


def _emit_norm_quantized_rows(  # type: ignore[no-untyped-def]
    e: Emission, x: Rows, residual, weight, bias, kind, eps
) -> tuple[Rows, Rows, Rows, Rows]:
    floats = e.new(x.columns, torch.float32)
    out = floats, e.new(x.columns, torch.uint8), e.new(1, torch.float32), e.new(1, torch.int32)
    _append(e, out, x, residual, weight, bias, kind, eps)
    return out


def _fake_norm_quantized_rows(x: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, ...]:
    rows = x.shape[:-1]
    return like(x, *x.shape), byte_rows(x, *x.shape), like(x, *rows), like(x, *rows, dtype=torch.int32)


define(
    "norm_quantized_rows",
    f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    compute=norm_quantized_rows,
    definition=_define_norm_quantized_rows,
    fake=_fake_norm_quantized_rows,
    emit=_emit_norm_quantized_rows,
    domains=(ROWS,),
    values=("x", "residual"),
    form=Quantizing("norm", PER_ROW, keeps_float=True),
)
