"""The attention core on INT8 queries, keys and values: from heads (`attention`), from uint8 rows, from float rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows, output_fields
from ..kernels.immediate import Immediate
from .attention_cores import append_attention, append_core
from .registry import EITHER, INSIDE, ROWS, define, native
from .roles import OnRows, Quantizing
from .shapes import like

_ZERO_POINT = numerics.SYMMETRIC_ZERO_POINT
_HEADS = "int heads, int kv_heads"
_CORE = "Tensor? mask, float scaling, bool causal"
_ROWS = f"Tensor q, Tensor k, Tensor v, Tensor q_scale, Tensor k_scale, Tensor v_scale, {_HEADS}, {_CORE}"


def to_heads(rows: Tensor, heads: int) -> Tensor:
    """`[batch, length, heads * head]` as `[batch, heads, length, head]`."""
    return rows.unflatten(-1, (heads, -1)).transpose(1, 2)


# -- attention: float heads ------------------------------------------------------------------------------------------------


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_scale: Tensor | None,
    key_scale: Tensor | None,
    value_scale: Tensor | None,
    mask: Tensor | None,
    scaling: float,
    causal: bool,
) -> Tensor:
    """INT8 attention core on float `[batch, heads, length, head]`, to float32 `[batch, length, heads, head]`.

    With scales the three inputs are quantized per tensor, without them per row; see `numerics.int8_attention`.
    """
    given = (query_scale, key_scale, value_scale)
    if not native(query, key):
        return _define_attention(query, key, value, *given, mask, scaling, causal).contiguous()
    batch, heads, length, head = query.shape
    e = Immediate((batch, length))
    q, k, v = (e.input(x.to(torch.float32).transpose(1, 2).flatten(2)) for x in (query, key, value))
    out = _emit_attention_floats(e, q, k, v, *given, heads, key.shape[1], scaling, causal)
    return e.run(out, batch, length, mask, key.shape[2]).view(batch, length, heads, head)


def _define_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_scale: Tensor | None,
    key_scale: Tensor | None,
    value_scale: Tensor | None,
    mask: Tensor | None,
    scaling: float,
    causal: bool,
) -> Tensor:
    quantized = []
    scales = []
    for x, given in ((query, query_scale), (key, key_scale), (value, value_scale)):
        scale = numerics.symmetric_row_scale(x) if given is None else given
        quantized.append(numerics.quantize_affine(x, scale.unsqueeze(-1) if given is None else scale, _ZERO_POINT))
        scales.append(scale)
    q, k, v = quantized
    q_scale, k_scale, v_scale = scales
    return numerics.int8_attention(q, k, v, q_scale, k_scale, v_scale, scaling, mask, causal).transpose(1, 2)


def _fake_attention(query: Tensor, *rest: Any, **named: Any) -> Tensor:
    batch, heads, length, head = query.shape
    return like(query, batch, length, heads, head)


define(
    "attention",
    "(Tensor query, Tensor key, Tensor value, Tensor? query_scale, Tensor? key_scale, Tensor? value_scale, "
    f"{_CORE}) -> Tensor",
    compute=attention,
    definition=_define_attention,
    fake=_fake_attention,
)


# -- attention_rows: uint8 rows, as projections wrote them -----------------------------------------------------------------


def attention_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_scale: Tensor,
    k_scale: Tensor,
    v_scale: Tensor,
    heads: int,
    kv_heads: int,
    mask: Tensor | None,
    scaling: float,
    causal: bool,
) -> Tensor:
    """The attention core on uint8 `[batch, length, heads * head]`, to float32 of q's shape. Scales are scalars, or `[batch, length,
    heads]` when dynamic."""
    q_scale, k_scale, v_scale = (s if s.dim() == 0 else s.transpose(1, 2) for s in (q_scale, k_scale, v_scale))
    parts = to_heads(q, heads), to_heads(k, kv_heads), to_heads(v, kv_heads)
    return numerics.int8_attention(*parts, q_scale, k_scale, v_scale, scaling, mask, causal).transpose(1, 2).flatten(2)


def _emit_attention_rows(  # type: ignore[no-untyped-def]
    e: Emission, q: Rows, k: Rows, v: Rows, q_scale, k_scale, v_scale, heads, kv_heads, scaling, causal
) -> Rows:
    out = e.new(q.columns, torch.float32)
    return append_attention(e, out, (q, k, v), (q_scale, k_scale, v_scale), heads, kv_heads, scaling, causal)


define(
    "attention_rows",
    f"({_ROWS}) -> Tensor",
    compute=attention_rows,
    definition=attention_rows,
    fake=lambda q, *rest, **named: like(q, *q.shape),
    emit=_emit_attention_rows,
    domains=(ROWS,),
    values=("q", "k", "v", "q_scale", "k_scale", "v_scale"),
    columns=("q", "k", "v", "q_scale", "k_scale", "v_scale"),
    keys=INSIDE,
)


def attention_rows_quantized(*rows_arguments: Any) -> Tensor:
    """`attention_rows`, then `quantize` with the scale and zero point that come last."""
    *core, scale, zero_point = rows_arguments
    return numerics.quantize_affine(attention_rows(*core), scale, zero_point)


def _emit_attention_rows_quantized(  # type: ignore[no-untyped-def]
    e: Emission,
    q: Rows,
    k: Rows,
    v: Rows,
    q_scale,
    k_scale,
    v_scale,
    heads,
    kv_heads,
    scaling,
    causal,
    scale,
    zero_point,
) -> Rows:
    out = e.new(q.columns, torch.uint8)
    fields = output_fields(scale, zero_point)
    return append_attention(e, out, (q, k, v), (q_scale, k_scale, v_scale), heads, kv_heads, scaling, causal, **fields)


define(
    "attention_rows_quantized",
    f"({_ROWS}, Tensor scale, Tensor zero_point) -> Tensor",
    compute=attention_rows_quantized,
    definition=attention_rows_quantized,
    fake=lambda q, *rest, **named: like(q, *q.shape, dtype=torch.uint8),
    emit=_emit_attention_rows_quantized,
    domains=(ROWS,),
    values=("q", "k", "v", "q_scale", "k_scale", "v_scale"),
    columns=("q", "k", "v", "q_scale", "k_scale", "v_scale"),
    keys=INSIDE,
    form=Quantizing("attention_rows"),
)


# -- attention_floats: float rows, keys and values with a length of their own ----------------------------------------------


def attention_floats(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_scale: Tensor | None,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
    heads: int,
    kv_heads: int,
    mask: Tensor | None,
    scaling: float,
    causal: bool,
) -> Tensor:
    """`attention` on float rows: q `[batch, length, heads * head]`, k and v `[batch, keys, kv_heads * head]`, to float32 of q's shape."""
    parts = to_heads(q, heads), to_heads(k, kv_heads), to_heads(v, kv_heads)
    return attention(*parts, q_scale, k_scale, v_scale, mask, scaling, causal).flatten(2)


def define_attention_floats(q, k, v, q_scale, k_scale, v_scale, heads, kv_heads, *core) -> Tensor:  # type: ignore[no-untyped-def]
    """The definition of `attention_floats`."""
    parts = to_heads(q, heads), to_heads(k, kv_heads), to_heads(v, kv_heads)
    return _define_attention(*parts, q_scale, k_scale, v_scale, *core).flatten(2)


def _emit_attention_floats(
    e: Emission,
    q: Rows,
    k: Rows,
    v: Rows,
    q_scale: Tensor | None,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
    heads: int,
    kv_heads: int,
    scaling: float,
    causal: bool,
) -> Rows:
    """Quantized with the given scales, or per row and head."""
    out = e.new(q.columns, torch.float32)
    return append_core(e, out, (q, k, v), (q_scale, k_scale, v_scale), heads, kv_heads, scaling, causal)


define(
    "attention_floats",
    f"(Tensor q, Tensor k, Tensor v, Tensor? q_scale, Tensor? k_scale, Tensor? v_scale, {_HEADS}, {_CORE}) -> Tensor",
    compute=attention_floats,
    definition=define_attention_floats,
    fake=lambda q, *rest, **named: like(q, *q.shape),
    emit=_emit_attention_floats,
    domains=(ROWS,),
    values=("q", "k", "v"),
    columns=("q", "k", "v"),
    keys=EITHER,
    form=OnRows("attention"),
)
