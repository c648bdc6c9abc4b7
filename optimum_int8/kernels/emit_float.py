"""What the float attention operators append to a program; see `emit`."""

from __future__ import annotations

import torch
from torch import Tensor

from .emit import Emission, Rows, _out_grid


def _attention(
    e: Emission,
    out: Rows,
    q: Rows,
    k: Rows,
    v: Rows,
    heads: int,
    kv_heads: int,
    bfloat16: bool,
    scaling: float,
    causal: bool,
    **fields: object,
) -> Rows:
    fields |= {"groups": heads, "kv_groups": kv_heads, "causal": int(causal), "parameter": scaling}
    fields |= {"bfloat16": int(bfloat16), "column": [r.column for r in (q, k, v)]}
    e.program.add("float_attention", [r.value for r in (q, k, v)], [out.value], columns=out.columns, **fields)
    return out


def float_attention_rows(
    e: Emission, q: Rows, k: Rows, v: Rows, heads: int, kv_heads: int, bfloat16: bool, scaling: float, causal: bool
) -> Rows:
    return _attention(e, e.new(q.columns, torch.float32), q, k, v, heads, kv_heads, bfloat16, scaling, causal)


def float_attention_rows_quantized(
    e: Emission,
    q: Rows,
    k: Rows,
    v: Rows,
    heads: int,
    kv_heads: int,
    bfloat16: bool,
    scaling: float,
    causal: bool,
    scale: Tensor,
    zero_point: Tensor,
) -> Rows:
    out, grid = e.new(q.columns, torch.uint8), _out_grid(scale, zero_point)
    return _attention(e, out, q, k, v, heads, kv_heads, bfloat16, scaling, causal, **grid)
