"""`torch.ops.optimum_int8.float_attention*`: the attention core in float32, or on operands rounded to bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics
from . import emit_float, ops
from .immediate import Immediate

_FLOAT = "int heads, int kv_heads, bool bfloat16, Tensor? mask, float scaling, bool causal"
SCHEMAS = {
    "float_attention": "(Tensor query, Tensor key, Tensor value, bool bfloat16, Tensor? mask, float scaling, bool causal) -> Tensor",
    "float_attention_rows": f"(Tensor q, Tensor k, Tensor v, {_FLOAT}) -> Tensor",
    "float_attention_rows_quantized": f"(Tensor q, Tensor k, Tensor v, {_FLOAT}, Tensor scale, Tensor zero_point) -> Tensor",
}

for _name, _schema in SCHEMAS.items():
    ops._definitions.define(_name + _schema)
ops.SCHEMAS.update(SCHEMAS)


def float_attention(
    query: Tensor, key: Tensor, value: Tensor, bfloat16: bool, mask: Tensor | None, scaling: float, causal: bool
) -> Tensor:
    """Float `[batch, heads, length, head]` to float32 `[batch, length, heads, head]`; see `numerics.float_attention`."""
    if not (ops._native(query) and ops._native(key)):
        return _reference(query, key, value, bfloat16, mask, scaling, causal).transpose(1, 2).contiguous()
    batch, heads, length, head = query.shape
    q, k, v = (x.to(torch.float32).transpose(1, 2).flatten(2) for x in (query, key, value))
    out = float_attention_rows(q, k, v, heads, key.shape[1], bfloat16, mask, scaling, causal)
    return out.view(batch, length, heads, head)


def _reference(query: Tensor, key: Tensor, value: Tensor, bfloat16: bool, *rest: object) -> Tensor:
    """Without the library: the definition but for the order of sums, which torch chooses."""
    mask, scaling, causal = rest
    rounded = numerics.round_to_bfloat16 if bfloat16 else torch.Tensor.contiguous
    return numerics.float_attention(query, key, value, scaling, mask, causal, rounded, torch_product)  # type: ignore[arg-type]


def torch_product(x: Tensor, y: Tensor, sums: Tensor) -> Tensor:
    """`sums + x @ y` in torch's own order."""
    return sums + x @ y


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
) -> Tensor:
    """`float_attention` on float rows: q `[batch, length, heads * head]`, k and v `[batch, keys, kv_heads * head]`, to float32 of q's shape."""
    if not (ops._native(q) and ops._native(k)):
        parts = ops._to_heads(q, heads), ops._to_heads(k, kv_heads), ops._to_heads(v, kv_heads)
        return float_attention(*parts, bfloat16, mask, scaling, causal).flatten(2)
    e = Immediate(q.shape[:-1])
    rows = [e.input(x.to(torch.float32)) for x in (q, k, v)]
    out = emit_float.float_attention_rows(e, *rows, heads, kv_heads, bfloat16, scaling, causal)  # type: ignore[arg-type]
    return e.run(out, q.shape[0], q.shape[1], mask, k.shape[1])


def float_attention_rows_quantized(*args: object) -> Tensor:
    """`float_attention_rows`, then `quantize` on the grid of the last two arguments."""
    *core, scale, zero_point = args
    return numerics.quantize_affine(float_attention_rows(*core), scale, zero_point)  # type: ignore[arg-type]


for _name in SCHEMAS:
    ops._definitions.impl(_name, globals()[_name], "CPU")
