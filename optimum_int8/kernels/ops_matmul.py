"""`torch.ops.optimum_int8.matmul`: two activations, by the kernel of linears, the second one packed on the way; batches of short sums by
torch's float32 product, which is exact there."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics
from . import ops
from .packing import pack, row_sums
from .prepared import used_once

_EXACT = numerics.exact_in_float(symmetric=False)

SCHEMAS = {"matmul": "(Tensor x, Tensor scale, Tensor zero_point, Tensor y, Tensor y_scale) -> Tensor"}

for _name, _schema in SCHEMAS.items():
    ops._definitions.define(_name + _schema)


def matmul(x: Tensor, scale: Tensor, zero_point: Tensor, y: Tensor, y_scale: Tensor) -> Tensor:
    """uint8 `[..., M, K]` by uint8 `[..., K, N]` with zero point 128, to float32 `[..., M, N]`; see `numerics.matmul`."""
    lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    if not (ops._native(x) and ops._native(y)):
        return numerics.matmul(x, scale, zero_point, y, y_scale).contiguous()
    if y.dim() > 2 and x.shape[-1] <= _EXACT:
        return numerics.matmul_in_float(x, scale, zero_point, y, y_scale)
    columns = y.shape[-1]
    weights = (y.transpose(-1, -2).to(torch.int16) - numerics.SYMMETRIC_ZERO_POINT).to(torch.int8)
    scales = y_scale.to(torch.float32).reshape(1).expand(columns).contiguous()
    if weights.dim() == 2:
        return _product(x, scale, zero_point, weights, scales)
    lefts = x.expand(*lead, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
    rights = weights.expand(*lead, *weights.shape[-2:]).reshape(-1, *weights.shape[-2:])
    out = torch.empty(lefts.shape[0], x.shape[-2], columns)
    for result, left, right in zip(out, lefts, rights, strict=True):
        result.copy_(_product(left, scale, zero_point, right, scales))
    return out.view(*lead, x.shape[-2], columns)


def _product(x: Tensor, scale: Tensor, zero_point: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return ops.linear(x, scale, zero_point, used_once(pack(weight)), row_sums(weight), scales, None)


@torch.library.register_fake("optimum_int8::matmul")
def _(x: Tensor, scale: Tensor, zero_point: Tensor, y: Tensor, y_scale: Tensor) -> Tensor:
    lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return x.new_empty((*lead, x.shape[-2], y.shape[-1]), dtype=torch.float32)


ops._definitions.impl("matmul", matmul, "CPU")
