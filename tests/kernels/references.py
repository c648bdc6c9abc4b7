"""What each operator computes, written with `numerics` alone: one side of every bit-equality test, and of scripts/bench_kernels.

`REFERENCES[op]` takes the arguments of `torch.ops.optimum_int8.<op>`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from optimum_int8 import kernels, numerics
from optimum_int8.numerics import Window


def quantize_groups(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    split = x.unflatten(-1, (groups, -1))
    scale = numerics.symmetric_row_scale(split)
    return numerics.quantize_affine(split, scale.unsqueeze(-1), 128).flatten(-2), scale


def linear(x, scale, zero_point, panels, weight_sum, weight_scale, bias, activation="none") -> Tensor:
    weight = kernels.unpack(panels, weight_scale.shape[0], x.shape[-1])
    return numerics.linear(x, scale, zero_point, weight, weight_scale, bias, activation)


def linear_quantized(*args: Any) -> Tensor:
    return numerics.quantize_affine(linear(*args[:-2]), *args[-2:])


def norm(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, kind: str, eps: float
) -> Tensor:
    y = x if residual is None else x + residual
    if kind == "none":
        return y
    with mock.patch("torch.sqrt", square_root):
        return numerics.layer_norm(y, weight, bias, eps) if kind == "layer_norm" else numerics.rms_norm(y, weight, eps)


def square_root(x: Tensor) -> Tensor:
    """Rounded as IEEE 754 says; torch's (MKL's) is one unit off in one of 150 float32 values."""
    return torch.from_numpy(np.sqrt(x.numpy()))


def norm_quantized(*args: Any) -> tuple[Tensor, Tensor]:
    y = norm(*args[:-2])
    return y, numerics.quantize_affine(y, *args[-2:])


def norm_quantized_rows(*args: Any) -> tuple[Tensor, ...]:
    y = norm(*args)
    return y, *numerics.quantize_rows(y)


def embedding(ids: Tensor, table: Tensor, row_scale: Tensor) -> Tensor:
    return numerics.embedding(ids, table.flatten(1), row_scale)


def embedding_add(ids: Tensor, table: Tensor, row_scale: Tensor, other: Tensor) -> Tensor:
    return embedding(ids, table, row_scale) + other


def attention(query, key, value, query_scale, key_scale, value_scale, mask, scaling, causal) -> Tensor:
    quantized, scales = [], []
    for x, scale in ((query, query_scale), (key, key_scale), (value, value_scale)):
        used = numerics.symmetric_row_scale(x) if scale is None else scale
        quantized.append(numerics.quantize_affine(x, used.unsqueeze(-1) if scale is None else used, 128))
        scales.append(used)
    return numerics.int8_attention(*quantized, *scales, scaling, mask, causal).transpose(1, 2)


def scores(query, key, query_scale, key_scale) -> Tensor:
    q, q_scale = numerics.symmetric_rows(query, query_scale)
    k, k_scale = numerics.symmetric_rows(key, key_scale)
    return numerics.scores(q, k, q_scale, k_scale)


def attention_rows(q, k, v, q_scale, k_scale, v_scale, heads, kv_heads, mask, scaling, causal) -> Tensor:
    parts = [x.unflatten(-1, (n, -1)).transpose(1, 2) for x, n in ((q, heads), (k, kv_heads), (v, kv_heads))]
    scales = [s if s.dim() == 0 else s.transpose(1, 2) for s in (q_scale, k_scale, v_scale)]
    return numerics.int8_attention(*parts, *scales, scaling, mask, causal).transpose(1, 2).flatten(2)


def attention_floats(q, k, v, q_scale, k_scale, v_scale, heads, kv_heads, *rest: Any) -> Tensor:
    parts = [x.unflatten(-1, (n, -1)).transpose(1, 2) for x, n in ((q, heads), (k, kv_heads), (v, kv_heads))]
    return attention(*parts, q_scale, k_scale, v_scale, *rest).flatten(2)


def attention_rows_quantized(*args: Any) -> Tensor:
    return numerics.quantize_affine(attention_rows(*args[:-2]), *args[-2:])


def float_attention(query, key, value, bfloat16, mask, scaling, causal) -> Tensor:
    core = numerics.bfloat16_attention if bfloat16 else numerics.float_attention
    return core(query, key, value, scaling, mask, causal).transpose(1, 2)


def float_attention_rows(q, k, v, heads, kv_heads, *rest: Any) -> Tensor:
    parts = [x.unflatten(-1, (n, -1)).transpose(1, 2) for x, n in ((q, heads), (k, kv_heads), (v, kv_heads))]
    return float_attention(*parts, *rest).flatten(2)


def float_attention_rows_quantized(*args: Any) -> Tensor:
    return numerics.quantize_affine(float_attention_rows(*args[:-2]), *args[-2:])


def conv(x, scale, zero_point, packed, weight_sum, weight_scale, bias, window, groups, *epilogue: Any) -> Tensor:
    w = Window(*window)
    weight = kernels.unpack_conv(packed, weight_scale.shape[0], x.shape[-1] // groups, groups, (w.height, w.width))
    return numerics.conv(x, scale, zero_point, weight, weight_scale, bias, w, groups, *epilogue)


def conv_both(*args: Any) -> tuple[Tensor, Tensor]:
    y = conv(*args[:13], *args[15:])
    return y, numerics.quantize_affine(y, *args[13:15])


REFERENCES: dict[str, Callable[..., Any]] = {
    "quantize": numerics.quantize_affine,
    "quantize_rows": numerics.quantize_rows,
    "quantize_groups": quantize_groups,
    "linear": linear,
    "linear_quantized": linear_quantized,
    "norm": norm,
    "norm_quantized": norm_quantized,
    "norm_quantized_rows": norm_quantized_rows,
    "embedding": embedding,
    "embedding_add": embedding_add,
    "attention": attention,
    "scores": scores,
    "attention_rows": attention_rows,
    "attention_floats": attention_floats,
    "attention_rows_quantized": attention_rows_quantized,
    "float_attention": float_attention,
    "float_attention_rows": float_attention_rows,
    "float_attention_rows_quantized": float_attention_rows_quantized,
    "quantize_samples": numerics.quantize_samples,
    "conv": conv,
    "conv_quantized": lambda *args: conv_both(*args)[1],
    "conv_both": conv_both,
    "max_pool": lambda x, window: numerics.max_pool(x, Window(*window)),
    "avg_pool": numerics.avg_pool,
    "avg_pool_quantized": lambda *args: numerics.quantize_affine(numerics.avg_pool(*args[:-2]), *args[-2:]),
    "dequantize": numerics.dequantize_affine,
    "add": numerics.add,
    "add_quantized": numerics.add_quantized,
    "cat_quantized": numerics.cat_quantized,
}


def difference(found: Any, expected: Any) -> str | None:
    """None when both (tensors or tuples of them) hold the same bits, else how they differ. All NaN are the same."""
    if not isinstance(expected, Tensor):
        return _first_difference(found, expected)
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{found.dtype} {tuple(found.shape)} is not {expected.dtype} {tuple(expected.shape)}"
    if torch.equal(found, expected) and not found.is_floating_point():
        return None
    unequal = found != expected
    if found.is_floating_point():
        unequal = (found.view(torch.int32) != expected.contiguous().view(torch.int32)) & ~(
            found.isnan() & expected.isnan()
        )
    if not unequal.any():
        return None
    where = tuple(unequal.nonzero()[0].tolist())
    return (
        f"{int(unequal.sum())} of {unequal.numel()} differ, first at {where}: {found[where]} is not {expected[where]}"
    )


def distance(found: Tensor, expected: Tensor) -> str | None:
    """None when both are equal but for float rounding, which turns the bfloat16 rounding of an exponential now and then."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{found.dtype} {tuple(found.shape)} is not {expected.dtype} {tuple(expected.shape)}"
    if found.dtype == torch.uint8:
        off = (found.int() - expected.int()).abs()
        return None if int(off.max()) <= 1 and float(off.float().mean()) < 0.01 else f"{int(off.max())} levels"
    error, size = (found - expected).abs(), expected.abs()
    good = float(error.max()) <= 2.0**-8 * float(size.max()) and float(error.norm()) <= 3e-4 * float(size.norm())
    return None if good else f"off by {float(error.max())} of {float(size.max())}"


def _first_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    if len(found) != len(expected):
        return f"{len(found)} results instead of {len(expected)}"
    for i, pair in enumerate(zip(found, expected, strict=True)):
        if (told := difference(*pair)) is not None:
            return f"result {i}: {told}"
    return None
