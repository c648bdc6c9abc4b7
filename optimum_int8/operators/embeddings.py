"""Rows of int8 embedding tables, also added to another value while they are read."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import Emission, Rows
from ..kernels.immediate import Immediate
from .registry import ROWS, define, native
from .shapes import like

_FEW = 8
"""Ids, as a decoder's step has them, for which torch's operators take half the time of a program that is made for one call."""


def embedding(ids: Tensor, table: Tensor, row_scale: Tensor) -> Tensor:
    """Rows of an int8 `[rows, dim]` (or `[rows, dim, 1]`) table as float32; see `numerics.embedding`.

    Raises IndexError on an id outside the table.
    """
    if not native(ids):
        return _define_embedding(ids, table, row_scale)
    if ids.numel() <= _FEW:
        return _few_rows(ids, table, row_scale)
    e = Immediate(ids.shape)
    rows = e.input(ids.to(torch.int64).unsqueeze(-1))
    return e.run(_emit_embedding(e, rows, table, row_scale))


def _few_rows(ids: Tensor, table: Tensor, row_scale: Tensor) -> Tensor:
    places = ids.reshape(-1).to(torch.int64)
    try:
        rows = table.flatten(1).index_select(0, places)
    except IndexError as error:
        raise IndexError("an index is outside the embedding table") from error
    scales = row_scale.index_select(0, places).unsqueeze(-1)
    return (rows.to(torch.float32) * scales).view(*ids.shape, -1)


def _define_embedding(ids: Tensor, table: Tensor, row_scale: Tensor) -> Tensor:
    return numerics.embedding(ids, table.flatten(1), row_scale)


def _emit_embedding(e: Emission, ids: Rows, table: Tensor, row_scale: Tensor, other: Rows | None = None) -> Rows:
    out = e.new(table.shape[1], torch.float32)
    inputs = [ids.value] if other is None else [ids.value, other.value]
    fields = {"columns": table.shape[1], "rows": table.shape[0], "weight": table, "weight_scale": row_scale}
    e.program.add("embedding", inputs, [out.value], **fields)
    return out


define(
    "embedding",
    "(Tensor ids, Tensor table, Tensor row_scale) -> Tensor",
    compute=embedding,
    definition=_define_embedding,
    fake=lambda ids, table, row_scale: like(ids, *ids.shape, table.shape[1]),
    emit=_emit_embedding,
    domains=(ROWS,),
    values=("ids",),
)


def embedding_add(ids: Tensor, table: Tensor, row_scale: Tensor, other: Tensor) -> Tensor:
    """`other + embedding(ids, table, row_scale)`; `ids` may lack the batch or have one entry for all of it."""
    return other + embedding(ids, table, row_scale)


define(
    "embedding_add",
    "(Tensor ids, Tensor table, Tensor row_scale, Tensor other) -> Tensor",
    compute=embedding_add,
    definition=lambda ids, table, row_scale, other: other + _define_embedding(ids, table, row_scale),
    fake=lambda ids, table, row_scale, other: like(other, *other.shape),
    emit=_emit_embedding,
    domains=(ROWS,),
    values=("other", "ids"),
)
