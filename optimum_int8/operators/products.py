"""Products of two activations; they run outside of programs."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics
from ..kernels.packing import pack, row_sums
from ..kernels.prepared import used_once
from .linears import linear
from .quantization import quantize
from .registry import define, native

_EXACT = numerics.exact_in_float(symmetric=False)


def matmul(x: Tensor, scale: Tensor, zero_point: Tensor, y: Tensor, y_scale: Tensor) -> Tensor:
    """uint8 `[..., M, K]` by uint8 `[..., K, N]` with zero point 128, to float32 `[..., M, N]`; see `numerics.matmul`.

    By the kernel of linears, the second one packed on the way; batches of short sums by torch's float32 product, which is exact there.
    """
    lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    if not native(x, y):
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
    return linear(x, scale, zero_point, used_once(pack(weight)), row_sums(weight), scales, None)


def _fake_matmul(x: Tensor, scale: Tensor, zero_point: Tensor, y: Tensor, y_scale: Tensor) -> Tensor:
    lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return x.new_empty((*lead, x.shape[-2], y.shape[-1]), dtype=torch.float32)


define(
    "matmul",
    "(Tensor x, Tensor scale, Tensor zero_point, Tensor y, Tensor y_scale) -> Tensor",
    compute=matmul,
    definition=numerics.matmul,
    fake=_fake_matmul,
)


def scores(query: Tensor, key: Tensor, query_scale: Tensor | None, key_scale: Tensor | None) -> Tensor:
    """float `[..., M, K]` by `[..., N, K]` to float32 `[..., M, N]`; without scales both are quantized per row. See `numerics.scores`.

    The sums are exact in float32, so torch's own product computes them.
    """
    if not native(query) or query.shape[-1] > numerics.MAX_FLOAT_REDUCTION:
        product = numerics.scores
    else:
        product = numerics.scores_in_float
    q, q_scale = _symmetric_rows(query, query_scale)
    k, k_scale = _symmetric_rows(key, key_scale)
    return product(q, k, q_scale, k_scale).contiguous()


def _symmetric_rows(x: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    if scale is None:
        return numerics.symmetric_rows(x, None)
    return quantize(x, scale, torch.tensor(numerics.SYMMETRIC_ZERO_POINT, dtype=torch.int32)), scale


def _define_scores(query: Tensor, key: Tensor, query_scale: Tensor | None, key_scale: Tensor | None) -> Tensor:
    q, q_scale = numerics.symmetric_rows(query, query_scale)
    k, k_scale = numerics.symmetric_rows(key, key_scale)
    return numerics.scores(q, k, q_scale, k_scale)


def _fake_scores(query: Tensor, key: Tensor, query_scale: Tensor | None, key_scale: Tensor | None) -> Tensor:
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    return query.new_empty((*lead, query.shape[-2], key.shape[-2]), dtype=torch.float32)


define(
    "scores",
    "(Tensor query, Tensor key, Tensor? query_scale, Tensor? key_scale) -> Tensor",
    compute=scores,
    definition=_define_scores,
    fake=_fake_scores,
)
