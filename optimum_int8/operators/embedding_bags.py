"""Sums, means and maxima of rows of int8 embedding tables; outside of programs, since a bag has as many ids as it likes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import row_bytes
from ..kernels.program import Program
from .registry import as_float, define, native


def embedding_bag(
    ids: Tensor,
    starts: Tensor,
    table: Tensor,
    row_scale: Tensor,
    mode: str,
    skipped: int = -1,
    factors: Tensor | None = None,
) -> Tensor:
    """See `numerics.embedding_bag`; the table may be `[rows, dim, 1]`. Raises IndexError on an id outside the table."""
    numerics.check_bags(len(ids), starts)
    if not native(table) or len(starts) == 1:
        return _define(ids, starts, table, row_scale, mode, skipped, factors)
    result = torch.empty(len(starts) - 1, table.shape[1])
    fields: dict[str, Any] = {} if factors is None else {"factors": as_float(factors).contiguous()}
    program = Program()
    program.add(
        "embedding_bag",
        [],
        [program.external(row_bytes(result.shape[1], result.dtype))],
        rows=table.shape[0],
        columns=table.shape[1],
        mode=numerics.BAG_MODES.index(mode),
        skipped=skipped,
        indices=ids.to(torch.int64).contiguous(),
        starts=starts.to(torch.int64).contiguous(),
        weight=table,
        weight_scale=row_scale,
        **fields,
    )
    program.run(1, len(result), [result])
    return result


def _define(
    ids: Tensor,
    starts: Tensor,
    table: Tensor,
    row_scale: Tensor,
    mode: str,
    skipped: int = -1,
    factors: Tensor | None = None,
) -> Tensor:
    plain = table.flatten(1) if table.dim() > 2 else table
    ids = ids.to(torch.int64)
    return numerics.embedding_bag(ids, starts, plain, row_scale, mode, skipped, factors)


def _fake(ids: Tensor, starts: Tensor, table: Tensor, *rest: Any, **named: Any) -> Tensor:
    return table.new_empty((starts.shape[0] - 1, table.shape[1]), dtype=torch.float32)


define(
    "embedding_bag",
    "(Tensor ids, Tensor starts, Tensor table, Tensor row_scale, str mode, int skipped=-1, Tensor? factors=None) -> Tensor",
    compute=embedding_bag,
    definition=_define,
    fake=_fake,
)
