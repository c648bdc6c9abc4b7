"""Arguments of the steps of recurrent layers (sizes around blocks of units, both directions, packed and padded, extreme states) and of bags
of table rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from optimum_int8 import kernels, numerics

GATES = {"lstm": numerics.LSTM_GATES, "gru": numerics.GRU_GATES}
SIZES = (
    # directions, steps, sequences, units
    (1, 1, 1, 1), (2, 3, 2, 1), (1, 4, 3, 15), (2, 2, 1, 16), (1, 3, 17, 31), (2, 3, 9, 32), (1, 2, 33, 33), (2, 2, 3, 63),
    (2, 3, 2, 65), (1, 2, 66, 64), (1, 2, 8, 97), (1, 2, 1, 300), (2, 2, 3, 260), (2, 2, 1, 420),
)  # fmt: skip


def hidden_weight(
    op: str, directions: int, units: int, bias: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Panels, sums, scales and bias as the operators take them."""
    gates = GATES[op]
    made = [numerics.quantize_weight(torch.randn(gates * units, units)) for _ in range(directions)]
    q, scale = (torch.cat([kernels.by_blocks(pair[i], gates) for pair in made]) for i in (0, 1))
    added = [kernels.by_blocks(torch.randn(gates * units), gates) for _ in range(directions)]
    return kernels.pack(q), kernels.row_sums(q), scale, torch.cat(added) if bias else None


def arguments(
    op: str,
    size: tuple[int, int, int, int],
    bias: bool = True,
    batch_first: bool = False,
    sizes: list[int] | None = None,
    magnitude: float = 1.0,
) -> tuple[Any, ...]:
    """Of `torch.ops.optimum_int8.lstm` and `gru`; inputs and states of this magnitude."""
    directions, steps, batch, units = size
    states = [magnitude * torch.randn(directions, batch, units) for _ in range(2 if op == "lstm" else 1)]
    states[0][:, -1] = 0.0
    if sizes is not None:
        lead: tuple[int, ...] = (sum(sizes),)
    else:
        lead = (batch, steps) if batch_first else (steps, batch)
    packed = None if sizes is None else torch.tensor(sizes)
    inputs = magnitude * torch.randn(*lead, directions * GATES[op] * units)
    return inputs, *states, *hidden_weight(op, directions, units, bias), packed, batch_first


def recurrent(op: str) -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    """Cases of one operator."""
    for size in SIZES:
        yield f"{size}", lambda s=size: arguments(op, s)
    yield "no_bias", lambda: arguments(op, (2, 3, 3, 33), bias=False)
    yield "batch_first", lambda: arguments(op, (2, 3, 5, 40), batch_first=True)
    for name, sizes in (("packed", [5, 5, 3, 1]), ("packed-one", [1, 1]), ("packed-many", [70, 65, 64, 2])):
        for directions in (1, 2):
            shape = directions, len(sizes), sizes[0], 48
            yield f"{name}-{directions}", lambda s=shape, n=sizes: arguments(op, s, sizes=n)
    for magnitude in (0.0, 1e-40, 50.0, 1e30):
        yield f"magnitude-{magnitude}", lambda m=magnitude: arguments(op, (1, 2, 2, 33), magnitude=m)
    yield "no_rows", lambda: arguments(op, (2, 0, 3, 8))
    yield "64", lambda: arguments(op, (1, 2, 5, 64))


def bag_arguments(mode: str, dim: int, sizes: list[int], skipped: int = -1, factors: bool = False) -> tuple[Any, ...]:
    """Of `torch.ops.optimum_int8.embedding_bag`; bags of these sizes."""
    q, scale = numerics.quantize_weight(torch.randn(13, dim))
    starts = torch.tensor([sum(sizes[:i]) for i in range(len(sizes) + 1)])
    count = sum(sizes)
    return torch.randint(0, 13, (count,)), starts, q, scale, mode, skipped, torch.randn(count) if factors else None


def bags() -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    """Cases of `embedding_bag`."""
    for mode in numerics.BAG_MODES:
        for dim in (1, 15, 16, 17, 33, 64, 97):
            yield f"{mode}-{dim}", lambda m=mode, d=dim: bag_arguments(m, d, [3, 1, 0, 17, 2])
        yield f"{mode}-skipped", lambda m=mode: bag_arguments(m, 20, [9, 1, 0, 17, 2], 4)
        yield f"{mode}-no_ids", lambda m=mode: bag_arguments(m, 20, [0, 0])
        yield f"{mode}-no_bags", lambda m=mode: bag_arguments(m, 20, [])
    yield "factors", lambda: bag_arguments("sum", 31, [3, 1, 0, 40, 2], factors=True)
    yield "factors-skipped", lambda: bag_arguments("sum", 32, [30, 1], 2, factors=True)
