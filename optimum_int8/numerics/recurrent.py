"""LSTM and GRU: the input's part of the gates is given for all steps, the hidden state is quantized per row in each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .activations import sigmoid, tanh
from .linears import linear
from .quantization import quantize_rows

LSTM_GATES = 4
GRU_GATES = 3


def lstm(
    inputs: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The steps of one layer, all directions: `(output, last hidden, last cell)` in float32.

    Args:
        inputs: float32 `[length, batch, directions * 4 * units]`, or `[batch, length, ...]` if `batch_first`: of each direction what the
            input adds to the gates input, forget, candidate and output, in this order. With `sizes`, `[rows, ...]` of packed sequences.
        hidden, cell: float32 `[directions, batch, units]`, the states before the first step. The second direction goes backwards.
        weight: int8 `[directions, 4 * units, units]`.
        weight_scale, bias: float32 `[directions, 4 * units]`.
        sizes: int64 `[length]`, sequences of each step, as `PackedSequence.batch_sizes`.
    """
    output, (last_hidden, last_cell) = _steps(
        _lstm_step, LSTM_GATES, inputs, (hidden, cell), (weight, weight_scale, bias), sizes, batch_first
    )
    return output, last_hidden, last_cell


def gru(
    inputs: Tensor,
    hidden: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `lstm`, of a GRU: `(output, last hidden)`; the gates are reset, update and candidate."""
    output, (last,) = _steps(_gru_step, GRU_GATES, inputs, (hidden,), (weight, weight_scale, bias), sizes, batch_first)
    return output, last


def _lstm_step(inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Any]) -> tuple[Tensor, ...]:
    hidden, cell = states
    gates = inputs + linear(*quantize_rows(hidden), *weights)
    entry, forget, candidate, output = gates.chunk(LSTM_GATES, -1)
    cell = sigmoid(forget) * cell + sigmoid(entry) * tanh(candidate)
    return sigmoid(output) * tanh(cell), cell


def _gru_step(inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Any]) -> tuple[Tensor, ...]:
    (hidden,) = states
    given = inputs.chunk(GRU_GATES, -1)
    recurrent = linear(*quantize_rows(hidden), *weights).chunk(GRU_GATES, -1)
    reset = sigmoid(given[0] + recurrent[0])
    update = sigmoid(given[1] + recurrent[1])
    candidate = tanh(given[2] + reset * recurrent[2])
    return (candidate + update * (hidden - candidate),)


def _steps(
    step: Callable[..., tuple[Tensor, ...]],
    gates: int,
    inputs: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Any],
    sizes: Tensor | None,
    batch_first: bool,
) -> tuple[Tensor, list[Tensor]]:
    check_recurrent(gates, inputs, states, sizes, batch_first)
    directions, batch, units = states[0].shape
    if batch_first and sizes is None:
        output, last = _steps(step, gates, inputs.transpose(0, 1), states, weights, None, False)
        return output.transpose(0, 1).contiguous(), last
    counts = [batch] * len(inputs) if sizes is None else sizes.tolist()
    rows = inputs.to(torch.float32).reshape(-1, directions, gates * units)
    output = rows.new_empty(len(rows), directions, units)
    last = [state.to(torch.float32).clone() for state in states]
    starts = [sum(counts[:time]) for time in range(len(counts))]
    for direction in range(directions):
        own = [None if weight is None else weight[direction] for weight in weights]
        for time in reversed(range(len(counts))) if direction else range(len(counts)):
            count = counts[time]
            span = slice(starts[time], starts[time] + count)
            before = [state[direction, :count] for state in last]
            for state, new in zip(last, step(rows[span, direction], before, own), strict=True):
                state[direction, :count] = new
            output[span, direction] = last[0][direction, :count]
    return output.reshape(*inputs.shape[:-1], directions * units), last


def check_recurrent(
    gates: int, inputs: Tensor, states: Sequence[Tensor], sizes: Tensor | None, batch_first: bool
) -> None:
    """Raises `ValueError` where inputs, states and sizes of packed sequences do not belong together."""
    directions, batch, units = states[0].shape
    if any(state.shape != states[0].shape for state in states):
        found = ", ".join(str(list(state.shape)) for state in states)
        raise ValueError(f"the states of a recurrent layer have shapes {found}; expected the same for all")
    if sizes is not None:
        counts = sizes.tolist()
        right = counts == sorted(counts, reverse=True) and counts[-1:] > [0] and counts[:1] == [batch]
        expected: tuple[int, ...] = (sum(counts), directions * gates * units)
        if not right:
            raise ValueError(
                f"packed sequences have {counts} rows per step; expected {batch}, then never more, never none"
            )
    else:
        length = inputs.shape[1 if batch_first else 0]
        lead = (batch, length) if batch_first else (length, batch)
        expected = (*lead, directions * gates * units)
    if tuple(inputs.shape) != expected:
        raise ValueError(
            f"a recurrent layer got {list(inputs.shape)} values for its gates, expected {list(expected)} by its states of "
            f"shape {list(states[0].shape)}"
        )
