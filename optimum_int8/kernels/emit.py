"""What each operator appends to a program. The operators (ops.py) run it at once; fine-grained FX strings many into one program.

A tensor is either `Rows`, a value of the program with one row per token, or a constant (a weight, a grid) whose numbers or pointer
go into the instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .. import numerics
from .packing import STEP
from .program import Program


class Rows(NamedTuple):
    """A value of a program: `columns` entries of `dtype` per row, from entry `column` of the value's rows on."""

    value: int
    columns: int
    dtype: torch.dtype
    column: int = 0
    size: tuple[int, int] = (0, 0)  # height and width, of an image


class Emission(Protocol):
    """Where instructions go, and where the results of the next one come to lie."""

    program: Program

    def new(self, columns: int, dtype: torch.dtype) -> Rows:
        """A value for the next result."""


def row_bytes(columns: int, dtype: torch.dtype) -> int:
    """Distance between rows; uint8 rows are padded to whole steps of the kernels."""
    return (columns + STEP - 1) // STEP * STEP if dtype == torch.uint8 else columns * dtype.itemsize


def _out_grid(scale: Tensor, zero_point: Tensor) -> dict[str, object]:
    fields: dict[str, object] = {"output_zero_point": int(zero_point)}
    return fields | ({"output_scales": scale} if scale.dim() else {"output_scale": float(scale)})


def quantize(e: Emission, x: Rows, scale: Tensor, zero_point: Tensor) -> Rows:
    out = e.new(x.columns, torch.uint8)
    e.program.add("quantize", [x.value], [out.value], columns=x.columns, **_out_grid(scale, zero_point))
    return out


def quantize_rows(e: Emission, x: Rows) -> tuple[Rows, Rows, Rows]:
    out = e.new(x.columns, torch.uint8), e.new(1, torch.float32), e.new(1, torch.int32)
    e.program.add("quantize", [x.value], [r.value for r in out], columns=x.columns, groups=1)
    return out


def quantize_groups(e: Emission, x: Rows, groups: int, key_side: bool = False) -> tuple[Rows, Rows]:
    out = e.new(x.columns, torch.uint8), e.new(groups, torch.float32)
    e.program.add(
        "quantize", [x.value], [r.value for r in out], columns=x.columns, groups=groups, key_side=int(key_side)
    )
    return out


def _linear(
    e: Emission,
    out: Rows,
    x: Rows,
    scale: Tensor | Rows,
    zero_point: Tensor | Rows,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    activation: str,
    **fields: object,
) -> Rows:
    inputs = [x.value]
    if isinstance(scale, Rows) and isinstance(zero_point, Rows):
        inputs += [scale.value, zero_point.value]
    else:
        fields |= {"input_scale": [float(scale)], "input_zero_point": int(zero_point)}  # type: ignore[arg-type]
    if bias is not None:
        fields["bias"] = bias
    fields |= {"weight": panels, "weight_sum": weight_sum, "weight_scale": weight_scale, "activation": activation}
    e.program.add("linear", inputs, [out.value], columns=out.columns, reduction=x.columns, **fields)
    return out


def linear(e: Emission, x: Rows, scale, zero_point, panels, weight_sum, weight_scale, bias, activation="none") -> Rows:  # type: ignore[no-untyped-def]
    out = e.new(weight_scale.shape[0], torch.float32)
    return _linear(e, out, x, scale, zero_point, panels, weight_sum, weight_scale, bias, activation)


def linear_quantized(  # type: ignore[no-untyped-def]
    e: Emission,
    x: Rows,
    scale,
    zero_point,
    panels,
    weight_sum,
    weight_scale,
    bias,
    activation,
    output_scale,
    output_zero_point,
) -> Rows:
    out = e.new(weight_scale.shape[0], torch.uint8)
    grid = _out_grid(output_scale, output_zero_point)
    return _linear(e, out, x, scale, zero_point, panels, weight_sum, weight_scale, bias, activation, **grid)


def _norm(
    e: Emission,
    outs: Sequence[Rows | None],
    x: Rows,
    residual: Rows | None,
    weight: Tensor | None,
    bias: Tensor | None,
    kind: str,
    eps: float,
    **fields: object,
) -> None:
    inputs = [x.value] if residual is None else [x.value, residual.value]
    fields |= {name: t for name, t in (("weight", weight), ("bias", bias)) if t is not None}
    outputs = [-1 if r is None else r.value for r in outs]
    e.program.add("norm", inputs, outputs, columns=x.columns, norm=kind, parameter=eps, **fields)


def norm(e: Emission, x: Rows, residual, weight, bias, kind: str, eps: float) -> Rows:  # type: ignore[no-untyped-def]
    out = e.new(x.columns, torch.float32)
    _norm(e, [out], x, residual, weight, bias, kind, eps)
    return out


def norm_quantized(e: Emission, x: Rows, residual, weight, bias, kind, eps, scale, zero_point) -> tuple[Rows, Rows]:  # type: ignore[no-untyped-def]
    out = e.new(x.columns, torch.float32), e.new(x.columns, torch.uint8)
    _norm(e, out, x, residual, weight, bias, kind, eps, **_out_grid(scale, zero_point))
    return out


def norm_quantized_rows(e: Emission, x: Rows, residual, weight, bias, kind, eps) -> tuple[Rows, Rows, Rows, Rows]:  # type: ignore[no-untyped-def]
    out = (
        e.new(x.columns, torch.float32),
        e.new(x.columns, torch.uint8),
        e.new(1, torch.float32),
        e.new(1, torch.int32),
    )
    _norm(e, out, x, residual, weight, bias, kind, eps)
    return out


def _attention(
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
    inputs = [r.value for r in qkv]
    if isinstance(scales[0], Rows):
        inputs += [s.value for s in scales]  # type: ignore[union-attr]
        fields["scale_column"] = [s.column for s in scales]  # type: ignore[union-attr]
    else:
        fields["input_scale"] = [float(s) for s in scales]  # type: ignore[arg-type]
    fields |= {"groups": heads, "kv_groups": kv_heads, "causal": int(causal), "parameter": scaling}
    e.program.add("attention", inputs, [out.value], columns=out.columns, column=[r.column for r in qkv], **fields)
    return out


def attention_rows(e: Emission, q, k, v, q_scale, k_scale, v_scale, heads, kv_heads, scaling, causal) -> Rows:  # type: ignore[no-untyped-def]
    return _attention(
        e, e.new(q.columns, torch.float32), (q, k, v), (q_scale, k_scale, v_scale), heads, kv_heads, scaling, causal
    )


def attention_rows_quantized(  # type: ignore[no-untyped-def]
    e: Emission, q, k, v, q_scale, k_scale, v_scale, heads, kv_heads, scaling, causal, scale, zero_point
) -> Rows:
    out, grid = e.new(q.columns, torch.uint8), _out_grid(scale, zero_point)
    return _attention(e, out, (q, k, v), (q_scale, k_scale, v_scale), heads, kv_heads, scaling, causal, **grid)


def attention(
    e: Emission,
    inputs: Sequence[Rows],
    scales: Sequence[Tensor | None],
    heads: int,
    kv_heads: int,
    scaling: float,
    causal: bool,
) -> Rows:
    """From float rows: quantized on the given grids, or per row and head."""
    rows: list[Rows] = []
    used: list[Tensor | Rows] = []
    for i, (x, scale) in enumerate(zip(inputs, scales, strict=True)):
        local = Rows(e.program.local(row_bytes(x.columns, torch.uint8)), x.columns, torch.uint8)
        rows.append(local)
        if scale is None:
            groups = heads if i == 0 else kv_heads
            grid = Rows(e.program.local(4 * groups), groups, torch.float32)
            e.program.add(
                "quantize", [x.value], [local.value, grid.value], columns=x.columns, groups=groups, key_side=int(i > 0)
            )
            used.append(grid)
        else:
            fields = _out_grid(scale, torch.tensor(numerics.SYMMETRIC_ZERO_POINT))
            e.program.add("quantize", [x.value], [local.value], columns=x.columns, key_side=int(i > 0), **fields)
            used.append(scale)
    out = e.new(inputs[0].columns, torch.float32)
    return _attention(e, out, rows, used, heads, kv_heads, scaling, causal)


def attention_floats(e: Emission, q, k, v, q_scale, k_scale, v_scale, heads, kv_heads, scaling, causal) -> Rows:  # type: ignore[no-untyped-def]
    return attention(e, (q, k, v), (q_scale, k_scale, v_scale), heads, kv_heads, scaling, causal)


def embedding(e: Emission, ids: Rows, table: Tensor, row_scale: Tensor, other: Rows | None = None) -> Rows:
    out = e.new(table.shape[1], torch.float32)
    inputs = [ids.value] if other is None else [ids.value, other.value]
    e.program.add(
        "embedding",
        inputs,
        [out.value],
        columns=table.shape[1],
        rows=table.shape[0],
        weight=table,
        weight_scale=row_scale,
    )
    return out


def embedding_add(e: Emission, ids: Rows, table: Tensor, row_scale: Tensor, other: Rows) -> Rows:
    return embedding(e, ids, table, row_scale, other)
