"""The definition of the INT8 arithmetic, in plain torch. Every kernel is an optimisation of this file, equal to it to the bit.

`float = (q - zero_point) * scale`. All float steps are float32, in the order written here, without fused multiply-add (except where
`numerics_float` says so), so that each one rounds as IEEE 754 says and any machine can repeat it. Sums over a row go through 16 lanes:
element `i` is added to lane `i % 16` in order, then lanes fold as `i + 8`, `i + 4`, `i + 2`, `i + 1`.

The reciprocal of a scale is taken once in float32 and multiplied with, as `torch.fake_quantize_per_tensor_affine` does: training
and inference then round alike, and a division per value is saved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .numerics_functions import ACTIVATIONS, LOG2E, softmax_weight

QMIN, QMAX = 0, 255
SIGNED_MAX = 127
SYMMETRIC_ZERO_POINT = 128
"""Signed values (attention's queries, keys and values) are kept as uint8 with this zero point."""

MAX_REDUCTION = 65_793
"""Largest K of a linear: 255 * 128 * K must stay below 2**31. Weights of other packages may be -128, ours never are."""

_TINY = 2.0**-126
_LANES = 16
_MASKED = -1e30


# -- scales ------------------------------------------------------------------------------------------------------------------


def affine_max(bits: int = 8) -> int:
    """Largest value on an unsigned grid of `2**bits` levels; half of it is the largest magnitude on a signed one."""
    return 2**bits - 1


def choose_affine_qparams(minimum: float, maximum: float, bits: int = 8) -> tuple[float, int]:
    """`(scale, zero_point)` of the unsigned grid that covers `[minimum, maximum]` and holds 0.0 exactly.

    The range is widened to contain zero. A range of zero width gets the smallest scale, which maps 0.0 to the zero point.
    """
    scale, zero_point = affine_qparams(torch.tensor(float(minimum)), torch.tensor(float(maximum)), bits)
    return float(scale), int(zero_point)


def affine_qparams(minimum: Tensor, maximum: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """`choose_affine_qparams` of float32 tensors: a float32 scale and an int32 zero point of their shape."""
    top = affine_max(bits)
    low = minimum.clamp(max=0.0)
    scale = ((maximum.clamp(min=0.0) - low) * reciprocal(torch.tensor(float(top)))).clamp(min=_TINY)
    zero_point = torch.round((0.0 - low) * reciprocal(scale)).clamp(QMIN, top).to(torch.int32)
    return scale, zero_point


def choose_symmetric_scale(absmax: float, bits: int = 8) -> float:
    """Scale that maps `[-absmax, absmax]` to `[-127, 127]`, or to what fewer bits leave of it."""
    return float(symmetric_scale(torch.tensor(float(absmax)), bits))


def symmetric_scale(absmax: Tensor, bits: int = 8) -> Tensor:
    """`choose_symmetric_scale` of a float32 tensor."""
    return (absmax / float(affine_max(bits) // 2)).clamp(min=_TINY)


def reciprocal(scale: Tensor) -> Tensor:
    """`1 / scale` in float32: the factor that quantization multiplies with."""
    return 1.0 / scale.to(torch.float32)


# -- quantize ----------------------------------------------------------------------------------------------------------------


def quantize_affine(x: Tensor, scale: float | Tensor, zero_point: int | Tensor) -> Tensor:
    """`clamp(round_half_even(x * (1 / scale)) + zero_point, 0, 255)` as uint8; NaN becomes 0.

    `scale` and `zero_point` broadcast against `x`.
    """
    inverse = reciprocal(torch.as_tensor(scale))
    zero = torch.as_tensor(zero_point).to(torch.float32)
    rounded = torch.round(x.to(torch.float32) * inverse).nan_to_num(
        nan=-float("inf"), posinf=float("inf"), neginf=-float("inf")
    )
    return (rounded + zero).clamp(QMIN, QMAX).to(torch.uint8)


def dequantize_affine(q: Tensor, scale: float | Tensor, zero_point: int | Tensor) -> Tensor:
    """`(q - zero_point) * scale` in float32."""
    return (q.to(torch.int32) - torch.as_tensor(zero_point)).to(torch.float32) * torch.as_tensor(scale).to(
        torch.float32
    )


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Dynamic quantization, one range per row of the last axis.

    Returns `(q, scale, zero_point)`: uint8 of x's shape, float32 and int32 of x's shape without the last axis.
    """
    x = x.to(torch.float32)
    scale, zero_point = affine_qparams(x.amin(-1), x.amax(-1))
    return quantize_affine(x, scale.unsqueeze(-1), zero_point.unsqueeze(-1)), scale, zero_point


def symmetric_row_scale(x: Tensor) -> Tensor:
    """Scale of each row of the last axis that maps its largest magnitude to 127: float32, x's shape without the last axis."""
    return symmetric_scale(x.to(torch.float32).abs().amax(-1))


def choose_weight_scale(weight: Tensor, per_channel: bool = True) -> Tensor:
    """float32 `[rows]` scales of a `[rows, columns]` weight in [-127, 127]; per tensor, all rows carry the same scale."""
    weight = weight.detach().to(torch.float32)
    absmax = weight.abs().amax(1) if per_channel else weight.abs().amax().repeat(weight.shape[0])
    return symmetric_scale(absmax)


def quantize_weight(weight: Tensor, per_channel: bool = True, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Symmetric int8 in [-127, 127] of a `[rows, columns]` weight.

    Args:
        scale: float32 `[rows]`, chosen already (`remedies.search_weight_scale`); larger values are clipped. None takes the largest.

    Returns `(q, scale)`: int8 of weight's shape and float32 `[rows]`; per tensor, all rows carry the same scale.
    """
    weight = weight.detach().to(torch.float32)
    scale = choose_weight_scale(weight, per_channel) if scale is None else scale
    q = torch.round(weight * reciprocal(scale).unsqueeze(1)).clamp(-SIGNED_MAX, SIGNED_MAX)
    return q.to(torch.int8), scale


# -- linear and embedding ----------------------------------------------------------------------------------------------------


def matmul_int32(x: Tensor, zero_point: int | Tensor, weight: Tensor) -> Tensor:
    """Exact `(x - zero_point) @ weight.T`: uint8 `[..., K]` by int8 `[N, K]` to int32 `[..., N]`.

    Computed in float64, where each product and each sum of up to `MAX_REDUCTION` of them is an exact integer.
    """
    centred = x.to(torch.float64) - torch.as_tensor(zero_point).to(torch.float64)
    return (centred @ weight.to(torch.float64).T).to(torch.int32)


def linear(
    x: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    """`activation((x - zero_point) @ weight.T * (scale * weight_scale) + bias)` in float32.

    Args:
        x: uint8 `[..., K]`.
        scale, zero_point: of x; scalars (static), or one per row, of shape `[...]` (dynamic).
        weight: int8 `[N, K]`.
        weight_scale: float32 `[N]`.
        bias: float32 `[N]`.
        activation: a key of `ACTIVATIONS`.
    """
    scale, zero_point = torch.as_tensor(scale), torch.as_tensor(zero_point)
    if scale.dim():
        scale, zero_point = scale.unsqueeze(-1), zero_point.unsqueeze(-1)
    y = matmul_int32(x, zero_point, weight).to(torch.float32) * (scale.to(torch.float32) * weight_scale)
    return ACTIVATIONS[activation](y if bias is None else y + bias)


def embedding(ids: Tensor, table: Tensor, row_scale: Tensor) -> Tensor:
    """Rows `ids` of an int8 `[rows, dim]` table as float32 `[..., dim]`, each times its row's scale."""
    return table[ids].to(torch.float32) * row_scale[ids].unsqueeze(-1)


# -- rows: sums, norms, softmax, attention -----------------------------------------------------------------------------------


def row_sum(x: Tensor) -> Tensor:
    """Sum over the last axis in the 16-lane order of the module's docstring."""
    width = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -width % _LANES)).unflatten(-1, (-1, _LANES))
    lanes = padded[..., 0, :]
    for i in range(1, padded.shape[-2]):
        lanes = lanes + padded[..., i, :]
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm over the last axis: mean, then the mean of squared differences, then `(x - mean) * (1 / sqrt(var + eps))`."""
    width = 1.0 / torch.tensor(float(x.shape[-1]))
    centred = x - (row_sum(x) * width).unsqueeze(-1)
    return _scale_rows(centred, row_sum(centred * centred) * width, weight, bias, eps)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis, without bias."""
    return _scale_rows(x, row_sum(x * x) * (1.0 / torch.tensor(float(x.shape[-1]))), weight, None, eps)


def _scale_rows(x: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    y = x * (1.0 / torch.sqrt(variance + torch.tensor(eps, dtype=torch.float32))).unsqueeze(-1)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_scale: Tensor,
    key_scale: Tensor,
    value_scale: Tensor,
    scaling: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """INT8 attention core: float32 `[batch, heads, queries, head]`.

    `exp(score - max)`, as a power of two, times the values' row scales when dynamic, becomes uint8 in 255ths of the row's largest; the float
    sum of the powers normalises.

    Args:
        query, key, value: uint8 with zero point 128, `[batch, heads, length, head]`; fewer key heads than query heads are shared.
        query_scale, key_scale, value_scale: float32 scalars (static), or `[batch, heads, length]` (dynamic).
        mask: boolean (True attends) or float32 added to the scores, broadcastable to `[batch, heads, queries, keys]`.
        causal: query i sees keys up to `i + keys - queries`.
    """
    static = torch.as_tensor(value_scale).dim() == 0
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    query_scale, key_scale, value_scale = (
        _per_row(t, groups if i else 1) for i, t in enumerate((query_scale, key_scale, value_scale))
    )
    q, k, v = (t.to(torch.float64) - SYMMETRIC_ZERO_POINT for t in (query, key, value))
    scaling_2 = torch.tensor(scaling, dtype=torch.float32) * LOG2E
    factor = (query_scale * scaling_2).unsqueeze(-1) * key_scale.unsqueeze(-2)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(torch.float32) * LOG2E
    scores = mask_scores((q @ k.transpose(-1, -2)).to(torch.float32) * factor, mask, causal)
    weights = softmax_weight(scores - scores.amax(-1, keepdim=True))
    total = row_sum(weights)
    if static:
        p, unit = torch.round(weights), value_scale / total
    else:
        weights = weights * value_scale.unsqueeze(-2)
        top = weights.amax(-1)
        # a tensor divided by a tensor: a number divided by one would be a product with its reciprocal
        p = torch.round(weights * (torch.tensor(255.0) / top).unsqueeze(-1))
        unit = top * reciprocal(torch.tensor(255.0)) / total
    return (p.to(torch.float64) @ v).to(torch.float32) * unit.unsqueeze(-1)


def _per_row(scale: Tensor, groups: int) -> Tensor:
    scale = torch.as_tensor(scale, dtype=torch.float32)
    return scale.reshape(1, 1, 1) if scale.dim() == 0 else scale.repeat_interleave(groups, 1)


def mask_scores(scores: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention scores with `attention`'s mask on them."""
    if mask is not None and mask.dtype == torch.bool:
        scores = torch.where(mask, scores, _MASKED)
    elif mask is not None:
        scores = scores + mask.to(torch.float32).clamp(min=_MASKED)
    if causal:
        queries, keys = scores.shape[-2:]
        visible = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(keys - queries)
        return torch.where(visible, scores, _MASKED)
    return scores
