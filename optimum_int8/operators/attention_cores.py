"""What attention cores on INT8 append to a program: from uint8 rows, from float rows, and on the rows that a cache keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, KeptRows, Rows, append_fields, output_fields, row_bytes

_ZERO_POINT = numerics.SYMMETRIC_ZERO_POINT


def append_attention(
    e: Emission,
    out: Rows,
    qkv: Sequence[Rows],
    scales: Sequence[Tensor | Rows],
    heads: int,
    kv_heads: int,
    scaling: float,
    causal: bool,
    **fields: object,
) -> Rows:
    """Append the core on uint8 rows, with scales that are known or stand in rows."""
    inputs = [r.value for r in qkv]
    if isinstance(scales[0], Rows):
        inputs += [s.value for s in scales]  # type: ignore[union-attr]
        fields["scale_column"] = [s.column for s in scales]  # type: ignore[union-attr]
    else:
        fields["input_scale"] = [float(s) for s in scales]  # type: ignore[arg-type]
    fields |= {"key_side": e.keys, "heads": heads, "key_heads": kv_heads, "causal": int(causal), "scaling": scaling}
    e.program.add("attention", inputs, [out.value], columns=out.columns, column=[r.column for r in qkv], **fields)
    return out


def append_core(
    e: Emission,
    out: Rows,
    floats: Sequence[Rows],
    given: Sequence[Tensor | None],
    heads: int,
    kv_heads: int,
    scaling: float,
    causal: bool,
) -> Rows:
    """Append the core on float rows of queries, keys and values, quantized with the given scales, or per row and head."""
    kept = [e.keep(x, kv_heads, scale) for x, scale in zip(floats[1:], given[1:], strict=True) if e.is_outside(x)]
    if len(kept) == 2 and kept[0] is not None and kept[1] is not None:
        queries, query_scale = _quantized(e, floats[0], given[0], heads)
        return _append_on_kept(e, out, (queries, query_scale), (kept[0], kept[1]), heads, kv_heads, scaling, causal)
    sides = (heads, kv_heads, kv_heads)
    quantized = [
        _quantized(e, *part, e.keys if i else 0) for i, part in enumerate(zip(floats, given, sides, strict=True))
    ]
    return append_attention(
        e, out, [q[0] for q in quantized], [q[1] for q in quantized], heads, kv_heads, scaling, causal
    )


def _quantized(
    e: Emission, x: Rows, known: Tensor | None, groups: int, key_side: int = 0
) -> tuple[Rows, Tensor | Rows]:
    """Float rows in INT8, and their scale: the known one, or one of each row and group."""
    local = Rows(e.program.local(row_bytes(x.columns, torch.uint8)), x.columns, torch.uint8)
    fields: dict[str, object] = {"key_side": key_side, "column": x.column, "columns": x.columns}
    if known is not None:
        fields |= output_fields(known, torch.tensor(_ZERO_POINT))
        e.program.add("quantize", [x.value], [local.value], **fields)
        return local, known
    scale = Rows(e.program.local(4 * groups), groups, torch.float32)
    e.program.add("quantize", [x.value], [local.value, scale.value], groups=groups, **fields)
    return local, scale


def append_core_on_kept(
    e: Emission,
    out: Rows,
    floats: Sequence[Rows],
    kept: tuple[KeptRows, KeptRows],
    given: Sequence[Tensor | None],
    heads: int,
    kv_heads: int,
    scaling: float,
    causal: bool,
) -> Rows:
    """The same, where keys and values go to those that a cache keeps in INT8, and are read there."""
    for x, side in zip(floats[1:], kept, strict=True):
        outputs = [side.codes.value] if side.scales is None else [side.codes.value, side.scales.value]
        fields = append_fields(kv_heads, x.columns, side.scale)
        e.program.add("append_int8", [x.value], outputs, column=x.column, key_side=e.keys, **fields)
    return _append_on_kept(e, out, _quantized(e, floats[0], given[0], heads), kept, heads, kv_heads, scaling, causal)


def _append_on_kept(
    e: Emission,
    out: Rows,
    queries: tuple[Rows, Tensor | Rows],
    kept: tuple[KeptRows, KeptRows],
    heads: int,
    kv_heads: int,
    scaling: float,
    causal: bool,
) -> Rows:
    rows, query_scale = queries
    scales: list[Any] = [query_scale, *[side.scale if side.scales is None else side.scales for side in kept]]
    return append_attention(e, out, [rows, *[side.codes for side in kept]], scales, heads, kv_heads, scaling, causal)
