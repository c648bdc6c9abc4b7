"""What the float attention operators append to a program; see `emit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .emit import Emission, Rows, _out_grid


def _attention(e: Emission, out: Rows, rows: Sequence[Rows], core: Sequence[Any], **fields: object) -> Rows:
    heads, kv_heads, bfloat16, scaling, causal = core
    fields |= {"groups": heads, "kv_groups": kv_heads, "causal": int(causal), "parameter": scaling}
    fields |= {"bfloat16": int(bfloat16), "column": [r.column for r in rows]}
    e.program.add("float_attention", [r.value for r in rows], [out.value], columns=out.columns, **fields)
    return out


def float_attention_rows(e: Emission, q: Rows, k: Rows, v: Rows, *core: Any) -> Rows:
    """float32."""
    return _attention(e, e.new(q.columns, torch.float32), (q, k, v), core)


def float_attention_rows_quantized(e: Emission, q: Rows, k: Rows, v: Rows, *rest: Any) -> Rows:
    """uint8 on the grid of the last two arguments."""
    *core, scale, zero_point = rest
    return _attention(e, e.new(q.columns, torch.uint8), (q, k, v), core, **_out_grid(scale, zero_point))
