"""The operators as `torch.ops.optimum_int8.*`: one native call each, or `numerics` where there is no library.

Registered in `torch.library` with shapes for tracing, so that `torch.export` sees each as one opaque node. Quantized tensors
travel as uint8 with their `scale` and `zero_point`: scalars when static, one per row when dynamic. The operators on `rows` and the
`_quantized` ones are what fine-grained FX rewrites to; models call the first five.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics
from . import emit
from .immediate import Immediate
from .library import library
from .packing import unpack

_ZERO_POINT = numerics.SYMMETRIC_ZERO_POINT

_LINEAR = "Tensor x, Tensor scale, Tensor zero_point, Tensor panels, Tensor weight_sum, Tensor weight_scale, Tensor? bias, str activation"
_NORM = "Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, str kind, float eps"
_ATTENTION = "Tensor? mask, float scaling, bool causal"
_CORE = (
    "Tensor q, Tensor k, Tensor v, Tensor q_scale, Tensor k_scale, Tensor v_scale, int heads, int kv_heads, "
    + _ATTENTION
)
SCHEMAS = {
    "quantize": "(Tensor x, Tensor scale, Tensor zero_point) -> Tensor",
    "quantize_rows": "(Tensor x) -> (Tensor, Tensor, Tensor)",
    "linear": f"({_LINEAR}='none') -> Tensor",
    "embedding": "(Tensor ids, Tensor table, Tensor row_scale) -> Tensor",
    "attention": "(Tensor query, Tensor key, Tensor value, Tensor? query_scale, Tensor? key_scale, Tensor? value_scale, "
    f"{_ATTENTION}) -> Tensor",
    "quantize_groups": "(Tensor x, int groups) -> (Tensor, Tensor)",
    "embedding_add": "(Tensor ids, Tensor table, Tensor row_scale, Tensor other) -> Tensor",
    "linear_quantized": f"({_LINEAR}, Tensor output_scale, Tensor output_zero_point) -> Tensor",
    "norm": f"({_NORM}) -> Tensor",
    "norm_quantized": f"({_NORM}, Tensor scale, Tensor zero_point) -> (Tensor, Tensor)",
    "norm_quantized_rows": f"({_NORM}) -> (Tensor, Tensor, Tensor, Tensor)",
    "attention_rows": f"({_CORE}) -> Tensor",
    "attention_floats": "(Tensor q, Tensor k, Tensor v, Tensor? q_scale, Tensor? k_scale, Tensor? v_scale, int heads, "
    f"int kv_heads, {_ATTENTION}) -> Tensor",
    "attention_rows_quantized": f"({_CORE}, Tensor scale, Tensor zero_point) -> Tensor",
}

_definitions = torch.library.Library("optimum_int8", "DEF")
for _name, _schema in SCHEMAS.items():
    _definitions.define(_name + _schema)


def _native(x: Tensor) -> bool:
    return x.numel() > 0 and library() is not None


def _float(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(torch.float32)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """float `[..., K]` to uint8 on one grid; see `numerics.quantize_affine`."""
    if not _native(x):
        return numerics.quantize_affine(x, scale, zero_point)
    e = Immediate(x.shape[:-1])
    return e.run(emit.quantize(e, e.input(_float(x)), scale, zero_point))


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float `[..., K]` to uint8 with a scale and a zero point per row; see `numerics.quantize_rows`."""
    if not _native(x):
        return numerics.quantize_rows(x)
    e = Immediate(x.shape[:-1])
    q, scale, zero_point = e.run(emit.quantize_rows(e, e.input(_float(x))))
    return q, scale.squeeze(-1), zero_point.squeeze(-1)


def quantize_groups(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """float `[..., K]` to uint8 with zero point 128 and one scale per row and group (head): uint8 `[..., K]`, float32 `[..., groups]`."""
    if not _native(x):
        split = x.unflatten(-1, (groups, -1))
        scale = numerics.symmetric_row_scale(split)
        return numerics.quantize_affine(split, scale.unsqueeze(-1), _ZERO_POINT).flatten(-2), scale
    e = Immediate(x.shape[:-1])
    return e.run(emit.quantize_groups(e, e.input(_float(x)), groups))


def linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    activation: str = "none",
) -> Tensor:
    """uint8 `[..., K]` by a packed weight to float32 `[..., N]`; see `numerics.linear`."""
    if not _native(x):
        weight = unpack(panels, weight_scale.shape[0], x.shape[-1])
        return numerics.linear(x, scale, zero_point, weight, weight_scale, bias, activation)
    e = Immediate(x.shape[:-1])
    grid = e.input(x), e.scalars(scale), e.scalars(zero_point)
    return e.run(emit.linear(e, *grid, panels, weight_sum, weight_scale, bias, activation))


def linear_quantized(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    activation: str,
    output_scale: Tensor,
    output_zero_point: Tensor,
) -> Tensor:
    """`linear`, then `quantize` on a grid for the tensor or (`output_scale` `[N]`) for each column."""
    if not _native(x):
        y = linear(x, scale, zero_point, panels, weight_sum, weight_scale, bias, activation)
        return numerics.quantize_affine(y, output_scale, output_zero_point)
    e = Immediate(x.shape[:-1])
    grid = e.input(x), e.scalars(scale), e.scalars(zero_point)
    weight = panels, weight_sum, weight_scale, bias
    return e.run(emit.linear_quantized(e, *grid, *weight, activation, output_scale, output_zero_point))


def norm(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, kind: str, eps: float
) -> Tensor:
    """`x + residual`, then its layer norm or RMS norm (`kind` is a name of `program.NORMS`); see `numerics`."""
    if not _native(x):
        y = x if residual is None else x + residual
        if kind == "none":
            return y
        return numerics.layer_norm(y, weight, bias, eps) if kind == "layer_norm" else numerics.rms_norm(y, weight, eps)
    e = Immediate(x.shape[:-1])
    return e.run(emit.norm(e, e.input(_float(x)), e.input(_float(residual)), weight, bias, kind, eps))


def norm_quantized(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    kind: str,
    eps: float,
    scale: Tensor,
    zero_point: Tensor,
) -> tuple[Tensor, Tensor]:
    """`norm`, and its result also quantized on a grid."""
    y = norm(x, residual, weight, bias, kind, eps)
    return y, quantize(y, scale, zero_point)


def norm_quantized_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, kind: str, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`norm`, and its result also quantized per row."""
    y = norm(x, residual, weight, bias, kind, eps)
    return y, *quantize_rows(y)


def embedding(ids: Tensor, table: Tensor, row_scale: Tensor) -> Tensor:
    """Rows of an int8 `[rows, dim]` (or `[rows, dim, 1]`) table as float32; see `numerics.embedding`.

    Raises IndexError on an id outside the table.
    """
    if not _native(ids):
        return numerics.embedding(ids, table.flatten(1), row_scale)
    e = Immediate(ids.shape)
    return e.run(emit.embedding(e, e.scalars(ids.to(torch.int64).reshape(ids.shape or (1,))), table, row_scale))


def embedding_add(ids: Tensor, table: Tensor, row_scale: Tensor, other: Tensor) -> Tensor:
    """`other + embedding(ids, table, row_scale)`; `ids` may lack the batch or have one entry for all of it."""
    return other + embedding(ids, table, row_scale)


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
    if not (_native(query) and _native(key)):
        return _attention_reference((query, key, value), given, mask, scaling, causal)
    batch, heads, length, head = query.shape
    e = Immediate((batch, length))
    rows = [e.input(x.to(torch.float32).transpose(1, 2).flatten(2)) for x in (query, key, value)]
    out = emit.attention(e, rows, given, heads, key.shape[1], scaling, causal)  # type: ignore[arg-type]
    return e.run(out, batch, length, mask, key.shape[2]).view(batch, length, heads, head)


def _attention_reference(
    inputs: tuple[Tensor, Tensor, Tensor],
    given: tuple[Tensor | None, ...],
    mask: Tensor | None,
    scaling: float,
    causal: bool,
) -> Tensor:
    quantized, used = [], []
    for x, known in zip(inputs, given, strict=True):
        scale = numerics.symmetric_row_scale(x) if known is None else known
        quantized.append(numerics.quantize_affine(x, scale.unsqueeze(-1) if known is None else scale, _ZERO_POINT))
        used.append(scale)
    return numerics.int8_attention(*quantized, *used, scaling, mask, causal).transpose(1, 2).contiguous()


def _to_heads(rows: Tensor, heads: int) -> Tensor:
    """`[batch, length, heads * head]` as `[batch, heads, length, head]`."""
    return rows.unflatten(-1, (heads, -1)).transpose(1, 2)


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
    scales = [s if s.dim() == 0 else s.transpose(1, 2) for s in (q_scale, k_scale, v_scale)]
    parts = _to_heads(q, heads), _to_heads(k, kv_heads), _to_heads(v, kv_heads)
    return numerics.int8_attention(*parts, *scales, scaling, mask, causal).transpose(1, 2).flatten(2)


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
    parts = _to_heads(q, heads), _to_heads(k, kv_heads), _to_heads(v, kv_heads)
    return attention(*parts, q_scale, k_scale, v_scale, mask, scaling, causal).flatten(2)


def attention_rows_quantized(*args: object) -> Tensor:
    """`attention_rows`, then `quantize` on the grid of the last two arguments."""
    *core, scale, zero_point = args
    return numerics.quantize_affine(attention_rows(*core), scale, zero_point)  # type: ignore[arg-type]


for _name in SCHEMAS:
    _definitions.impl(_name, globals()[_name], "CPU")
