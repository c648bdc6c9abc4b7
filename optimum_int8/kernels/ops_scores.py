"""`torch.ops.optimum_int8.scores`: two activations row by row. The sums are exact in float32, so torch's own product computes them."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import numerics
from . import ops

SCHEMAS = {"scores": "(Tensor query, Tensor key, Tensor? query_scale, Tensor? key_scale) -> Tensor"}

for _name, _schema in SCHEMAS.items():
    ops._definitions.define(_name + _schema)
ops.SCHEMAS.update(SCHEMAS)


def scores(query: Tensor, key: Tensor, query_scale: Tensor | None, key_scale: Tensor | None) -> Tensor:
    """float `[..., M, K]` by `[..., N, K]` to float32 `[..., M, N]`; without scales both are quantized per row. See `numerics.scores`."""
    if ops.library() is None or query.shape[-1] > numerics.MAX_FLOAT_REDUCTION:
        product = numerics.scores
    else:
        product = numerics.scores_in_float
    q, q_scale = _rows(query, query_scale)
    k, k_scale = _rows(key, key_scale)
    return product(q, k, q_scale, k_scale).contiguous()


def _rows(x: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    if scale is None:
        return numerics.symmetric_rows(x, None)
    return ops.quantize(x, scale, torch.tensor(numerics.SYMMETRIC_ZERO_POINT, dtype=torch.int32)), scale


@torch.library.register_fake("optimum_int8::scores")
def _(query: Tensor, key: Tensor, query_scale: Tensor | None, key_scale: Tensor | None) -> Tensor:
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    return query.new_empty((*lead, query.shape[-2], key.shape[-2]), dtype=torch.float32)


ops._definitions.impl("scores", scores, "CPU")
