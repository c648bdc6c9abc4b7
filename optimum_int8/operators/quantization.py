"""Quantization of activations, and the way back: per tensor, per row, per row and head, per image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, ImageEmission, Rows, output_fields
from ..kernels.immediate import Immediate, ImmediateImages
from .registry import IMAGES, ROWS, as_float, define, native
from .roles import DEQUANTIZATION, PER_GROUP, PER_ROW, PER_SAMPLE, PER_TENSOR, QUANTIZATION
from .shapes import byte_rows, like

# -- quantize: float `[..., K]` to uint8 with one scale and zero point ------------------------------------------------------


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """float `[..., K]` to uint8 with the scale and zero point of the tensor; see `numerics.quantize_affine`."""
    if not native(x):
        return numerics.quantize_affine(x, scale, zero_point)
    e = Immediate(x.shape[:-1])
    return e.run(_emit_quantize(e, e.input(as_float(x)), scale, zero_point))


def _emit_quantize(e: Emission, x: Rows, scale: Tensor, zero_point: Tensor) -> Rows:
    out = e.new(x.columns, torch.uint8)
    e.program.add("quantize", [x.value], [out.value], columns=x.columns, **output_fields(scale, zero_point))
    return out


define(
    "quantize",
    "(Tensor x, Tensor scale, Tensor zero_point) -> Tensor",
    compute=quantize,
    definition=numerics.quantize_affine,
    fake=lambda x, scale, zero_point: byte_rows(x, *x.shape),
    emit=_emit_quantize,
    domains=(ROWS, IMAGES),
    values=("x",),
    role=QUANTIZATION,
    per=PER_TENSOR,
    elementwise=True,
)


# -- dequantize: uint8 `[..., K]` to float32 ---------------------------------------------------------------------------------


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """uint8 `[..., K]` to float32; see `numerics.dequantize_affine`."""
    if not native(q) or not q.dim():
        return numerics.dequantize_affine(q, scale, zero_point)
    e = Immediate(q.shape[:-1])
    return e.run(_emit_dequantize(e, e.input(q), scale, zero_point))


def _emit_dequantize(e: Emission, q: Rows, scale: Tensor, zero_point: Tensor) -> Rows:
    out = e.new(q.columns, torch.float32)
    fields = {"input_scale": float(scale), "input_zero_point": int(zero_point)}
    e.program.add("add", [q.value], [out.value], columns=q.columns, **fields)
    return out


define(
    "dequantize",
    "(Tensor q, Tensor scale, Tensor zero_point) -> Tensor",
    compute=dequantize,
    definition=numerics.dequantize_affine,
    fake=lambda q, scale, zero_point: like(q, *q.shape),
    emit=_emit_dequantize,
    domains=(ROWS, IMAGES),
    values=("q",),
    role=DEQUANTIZATION,
    elementwise=True,
)


# -- quantize_rows: a scale and a zero point of its own for each row ------------------------------------------------------


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float `[..., K]` to uint8 with a scale and a zero point per row; see `numerics.quantize_rows`."""
    if not native(x):
        return numerics.quantize_rows(x)
    e = Immediate(x.shape[:-1])
    q, scale, zero_point = e.run(_emit_quantize_rows(e, e.input(as_float(x))))
    return q, scale.squeeze(-1), zero_point.squeeze(-1)


def _emit_quantize_rows(e: Emission, x: Rows) -> tuple[Rows, Rows, Rows]:
    out = e.new(x.columns, torch.uint8), e.new(1, torch.float32), e.new(1, torch.int32)
    e.program.add("quantize", [x.value], [r.value for r in out], columns=x.columns, groups=1)
    return out


def _fake_quantize_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.shape[:-1]
    return byte_rows(x, *x.shape), like(x, *rows), like(x, *rows, dtype=torch.int32)


define(
    "quantize_rows",
    "(Tensor x) -> (Tensor, Tensor, Tensor)",
    compute=quantize_rows,
    definition=numerics.quantize_rows,
    fake=_fake_quantize_rows,
    emit=_emit_quantize_rows,
    domains=(ROWS,),
    values=("x",),
    role=QUANTIZATION,
    per=PER_ROW,
)


# -- quantize_groups: zero point 128 and a scale for each row and group (head) -------------------------------------------


def quantize_groups(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """float `[..., K]` to uint8 with zero point 128 and one scale per row and group (head): uint8 `[..., K]`, float32 `[..., groups]`."""
    if not native(x):
        return _define_quantize_groups(x, groups)
    e = Immediate(x.shape[:-1])
    return e.run(_emit_quantize_groups(e, e.input(as_float(x)), groups))


def _define_quantize_groups(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    split = x.unflatten(-1, (groups, -1))
    scale = numerics.symmetric_row_scale(split)
    q = numerics.quantize_affine(split, scale.unsqueeze(-1), numerics.SYMMETRIC_ZERO_POINT)
    return q.flatten(-2), scale


def _emit_quantize_groups(e: Emission, x: Rows, groups: int) -> tuple[Rows, Rows]:
    out = e.new(x.columns, torch.uint8), e.new(groups, torch.float32)
    e.program.add("quantize", [x.value], [r.value for r in out], columns=x.columns, groups=groups)
    return out


define(
    "quantize_groups",
    "(Tensor x, int groups) -> (Tensor, Tensor)",
    compute=quantize_groups,
    definition=_define_quantize_groups,
    fake=lambda x, groups: (byte_rows(x, *x.shape), like(x, *x.shape[:-1], groups)),
    emit=_emit_quantize_groups,
    domains=(ROWS,),
    values=("x",),
    role=QUANTIZATION,
    per=PER_GROUP,
)


# -- quantize_samples: a scale and a zero point for each image of a batch -------------------------------------------------


def quantize_samples(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float `[batch, ..., channels]` to uint8 with a scale and a zero point per sample; see `numerics.quantize_samples`."""
    if not native(x) or x.dim() != 4:
        return numerics.quantize_samples(x)
    e = ImmediateImages(x.shape)
    q, scale, zero_point = e.run_images(_emit_quantize_samples(e, e.image(x.to(torch.float32))))
    return q, scale.flatten(), zero_point.flatten()


def _emit_quantize_samples(e: ImageEmission, x: Rows) -> tuple[Rows, Rows, Rows]:
    e.size = x.size
    out = e.new(x.columns, torch.uint8)
    e.size = (1, 1)
    scale = e.new(1, torch.float32)
    zero_point = e.new(1, torch.int32)
    e.program.add("quantize_sample", [x.value], [r.value for r in (out, scale, zero_point)], columns=x.columns)
    return out, scale, zero_point


def _fake_quantize_samples(x: Tensor) -> tuple[Any, Any, Any]:
    batch = x.shape[0]
    return byte_rows(x, *x.shape), like(x, batch), like(x, batch, dtype=torch.int32)


define(
    "quantize_samples",
    "(Tensor x) -> (Tensor, Tensor, Tensor)",
    compute=quantize_samples,
    definition=numerics.quantize_samples,
    fake=_fake_quantize_samples,
    emit=_emit_quantize_samples,
    domains=(IMAGES,),
    values=("x",),
    role=QUANTIZATION,
    per=PER_SAMPLE,
)
