"""The steps of recurrent layers, all directions of a layer at once; outside of programs, since a row depends on the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels.emission import row_bytes
from ..kernels.packing import PANEL, unpack
from ..kernels.packing_recurrent import from_blocks
from ..kernels.program import Program
from .registry import as_float, define, native

_WEIGHT = (
    "Tensor panels, Tensor weight_sum, Tensor weight_scale, Tensor? bias, Tensor? sizes=None, bool batch_first=False"
)


def lstm(
    inputs: Tensor,
    hidden: Tensor,
    cell: Tensor,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `numerics.lstm`; the weight lies as `kernels.by_blocks` has it, direction after direction."""
    states = [hidden, cell]
    if not native(inputs, hidden):
        return _define_lstm(inputs, hidden, cell, panels, weight_sum, weight_scale, bias, sizes, batch_first)
    weight = panels, weight_sum, weight_scale, bias
    output, last_hidden, last_cell = _run(numerics.LSTM_GATES, inputs, states, weight, sizes, batch_first)
    return output, last_hidden, last_cell


def gru(
    inputs: Tensor,
    hidden: Tensor,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor]:
    """See `numerics.gru`, and `lstm` for the weight."""
    if not native(inputs, hidden):
        return _define_gru(inputs, hidden, panels, weight_sum, weight_scale, bias, sizes, batch_first)
    weight = panels, weight_sum, weight_scale, bias
    output, last = _run(numerics.GRU_GATES, inputs, [hidden], weight, sizes, batch_first)
    return output, last


def _run(
    gates: int,
    inputs: Tensor,
    states: Sequence[Tensor],
    weight: tuple[Tensor, Tensor, Tensor, Tensor | None],
    sizes: Tensor | None,
    batch_first: bool,
) -> list[Tensor]:
    numerics.check_recurrent(gates, inputs, states, sizes, batch_first)
    directions, batch, units = states[0].shape
    fields: dict[str, Any] = {"length": inputs.shape[1 if batch_first else 0], "batch_first": batch_first}
    if sizes is not None:
        sizes = sizes.to(torch.int64).contiguous()
        fields = {"length": len(sizes), "sizes": sizes, "starts": sizes.cumsum(0) - sizes}
    panels, weight_sum, weight_scale, bias = weight
    if bias is not None:
        fields["bias"] = bias
    results = [torch.empty(*inputs.shape[:-1], directions * units), *(torch.empty(x.shape) for x in states)]
    tensors = [as_float(inputs).contiguous(), *(as_float(x).contiguous() for x in states), *results]
    program = Program()
    values = [program.external(row_bytes(x.shape[-1], x.dtype)) for x in tensors]
    program.add(
        "recurrent",
        values[: 1 + len(states)],
        values[1 + len(states) :],
        columns=units,
        gates=gates,
        directions=directions,
        batch=batch,
        weight=panels,
        weight_sum=weight_sum,
        weight_scale=weight_scale,
        **fields,
    )
    program.run(1, 1, tensors)  # the kernel counts its rows itself
    return results


def _unpacked(
    gates: int, hidden: Tensor, panels: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    directions, _, units = hidden.shape
    matrix = unpack(panels, len(panels) * PANEL, units)

    def plain(x: Tensor) -> Tensor:
        return torch.stack([from_blocks(part, gates, units) for part in x.chunk(directions)])

    return plain(matrix), plain(weight_scale), None if bias is None else plain(bias)


def _define_lstm(
    inputs: Tensor,
    hidden: Tensor,
    cell: Tensor,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    weight = _unpacked(numerics.LSTM_GATES, hidden, panels, weight_scale, bias)
    return numerics.lstm(inputs, hidden, cell, *weight, sizes, batch_first)


def _define_gru(
    inputs: Tensor,
    hidden: Tensor,
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor]:
    weight = _unpacked(numerics.GRU_GATES, hidden, panels, weight_scale, bias)
    return numerics.gru(inputs, hidden, *weight, sizes, batch_first)


def _fake_lstm(inputs: Tensor, hidden: Tensor, cell: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, ...]:
    return _fake_output(inputs, hidden), _fake_state(hidden), _fake_state(cell)


def _fake_gru(inputs: Tensor, hidden: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, ...]:
    return _fake_output(inputs, hidden), _fake_state(hidden)


def _fake_output(inputs: Tensor, hidden: Tensor) -> Tensor:
    return inputs.new_empty((*inputs.shape[:-1], hidden.shape[0] * hidden.shape[2]), dtype=torch.float32)


def _fake_state(state: Tensor) -> Tensor:
    return state.new_empty(state.shape, dtype=torch.float32)


define(
    "lstm",
    f"(Tensor inputs, Tensor hidden, Tensor cell, {_WEIGHT}) -> (Tensor, Tensor, Tensor)",
    compute=lstm,
    definition=_define_lstm,
    fake=_fake_lstm,
)
define(
    "gru",
    f"(Tensor inputs, Tensor hidden, {_WEIGHT}) -> (Tensor, Tensor)",
    compute=gru,
    definition=_define_gru,
    fake=_fake_gru,
)
