"""The attention core in float32, or on operands rounded to bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows, output_fields
from ..kernels.immediate import Immediate
from .attention_int8 import _fake_attention, to_heads
from .registry import EITHER, ROWS, define, native
from .roles import OnRows, Quantizing
from .shapes import like

_CORE = "bool bfloat16, Tensor? mask, float scaling, bool causal"
_ROWS = f"Tensor q, Tensor k, Tensor v, int heads, int kv_heads, {_CORE}"


def float_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bfloat16: bool,
    mask: Tensor | None,
    scaling: float,
    causal: bool,
    softcap: float = 0.0,
) -> Tensor:
    """Float `[batch, heads, length, head]` to float32 `[batch, length, heads, head]`; see `numerics.float_attention`."""
    if not native(query, key):
        return _in_torch(query, key, value, bfloat16, mask, scaling, causal, softcap).transpose(1, 2).contiguous()
    batch, heads, length, head = query.shape
    q, k, v = (x.to(torch.float32).transpose(1, 2).flatten(2) for x in (query, key, value))
    out = float_attention_rows(q, k, v, heads, key.shape[1], bfloat16, mask, scaling, causal, softcap)
    return out.view(batch, length, heads, head)


def _in_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bfloat16: bool,
    mask: Tensor | None,
    scaling: float,
    causal: bool,
    softcap: float,
) -> Tensor:
    """The definition but for the order of sums, which torch chooses: without the library, for speed."""
    rounded = numerics.round_to_bfloat16 if bfloat16 else Tensor.contiguous
    return numerics.float_attention(query, key, value, scaling, mask, causal, rounded, torch_product, softcap)


def torch_product(x: Tensor, y: Tensor, sums: Tensor) -> Tensor:
    """`sums + x @ y` in torch's own order."""
    return sums + x @ y


def _define_float_attention(query, key, value, bfloat16, mask, scaling, causal, softcap=0.0) -> Tensor:  # type: ignore[no-untyped-def]
    core = numerics.bfloat16_attention if bfloat16 else numerics.float_attention
    return core(query, key, value, scaling, mask, causal, softcap=softcap).transpose(1, 2)


define(
    "float_attention",
    f"(Tensor query, Tensor key, Tensor value, {_CORE}, float softcap=0.0) -> Tensor",
    compute=float_attention,
    definition=_define_float_attention,
    fake=_fake_attention,
)


def float_attention_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    kv_heads: int,
    bfloat16: bool,
    mask: Tensor | None,
    scaling: float,
    causal: bool,
    softcap: float = 0.0,
) -> Tensor:
    """`float_attention` on float rows: q `[batch, length, heads * head]`, k and v `[batch, keys, kv_heads * head]`, to float32 of q's shape."""
    if not native(q, k):
        parts = to_heads(q, heads), to_heads(k, kv_heads), to_heads(v, kv_heads)
        return float_attention(*parts, bfloat16, mask, scaling, causal, softcap).flatten(2)
    e = Immediate(q.shape[:-1])
    q_rows, k_rows, v_rows = (e.input(x.to(torch.float32)) for x in (q, k, v))
    rows = q_rows, k_rows, v_rows
    out = _emit_float_attention_rows(e, *rows, heads, kv_heads, bfloat16, scaling, causal, softcap)
    return e.run(out, q.shape[0], q.shape[1], mask, k.shape[1])


def define_float_attention_rows(q, k, v, heads, kv_heads, *core) -> Tensor:  # type: ignore[no-untyped-def]
    """The definition of `float_attention_rows`."""
    parts = to_heads(q, heads), to_heads(k, kv_heads), to_heads(v, kv_heads)
    return _define_float_attention(*parts, *core).flatten(2)


def append_float_core(
    e: Emission,
    out: Rows,
    rows: Sequence[Rows],
    heads: int,
    kv_heads: int,
    bfloat16: bool,
    scaling: float,
    causal: bool,
    softcap: float,
    **fields: object,
) -> Rows:
    """Append the core on float rows of queries, keys and values."""
    fields |= {"key_side": e.keys, "heads": heads, "key_heads": kv_heads, "causal": int(causal), "scaling": scaling}
    fields |= {"softcap": softcap, "bfloat16": int(bfloat16), "column": [r.column for r in rows]}
    e.program.add("float_attention", [r.value for r in rows], [out.value], columns=out.columns, **fields)
    return out


def _emit_float_attention_rows(  # type: ignore[no-untyped-def]
    e: Emission, q: Rows, k: Rows, v: Rows, heads, kv_heads, bfloat16, scaling, causal, softcap=0.0
) -> Rows:
    out = e.new(q.columns, torch.float32)
    return append_float_core(e, out, (q, k, v), heads, kv_heads, bfloat16, scaling, causal, softcap)


define(
    "float_attention_rows",
    f"({_ROWS}, float softcap=0.0) -> Tensor",
    compute=float_attention_rows,
    definition=define_float_attention_rows,
    fake=lambda q, *rest, **named: like(q, *q.shape),
    emit=_emit_float_attention_rows,
    domains=(ROWS,),
    values=("q", "k", "v"),
    columns=("q", "k", "v"),
    keys=EITHER,
    form=OnRows("float_attention"),
)


def float_attention_rows_quantized(*rows_arguments: Any) -> Tensor:
    """`float_attention_rows`, then `quantize` with the scale and zero point that come last."""
    *core, scale, zero_point = rows_arguments
    return numerics.quantize_affine(float_attention_rows(*core), scale, zero_point)


def _define_float_attention_rows_quantized(*rows_arguments: Any) -> Tensor:
    *core, scale, zero_point = rows_arguments
    return numerics.quantize_affine(define_float_attention_rows(*core), scale, zero_point)


def _emit_float_attention_rows_quantized(  # type: ignore[no-untyped-def]
    e: Emission, q: Rows, k: Rows, v: Rows, heads, kv_heads, bfloat16, scaling, causal, softcap, scale, zero_point
) -> Rows:
    out = e.new(q.columns, torch.uint8)
    fields = output_fields(scale, zero_point)
    return append_float_core(e, out, (q, k, v), heads, kv_heads, bfloat16, scaling, causal, softcap, **fields)


define(
    "float_attention_rows_quantized",
    f"({_ROWS}, float softcap, Tensor scale, Tensor zero_point) -> Tensor",
    compute=float_attention_rows_quantized,
    definition=_define_float_attention_rows_quantized,
    fake=lambda q, *rest, **named: like(q, *q.shape, dtype=torch.uint8),
    emit=_emit_float_attention_rows_quantized,
    domains=(ROWS,),
    values=("q", "k", "v"),
    columns=("q", "k", "v"),
    keys=EITHER,
    form=Quantizing("float_attention_rows"),
)
