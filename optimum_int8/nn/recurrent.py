"""`nn.LSTM`, `nn.GRU` and their cells on INT8."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .. import numerics
from .gradient import straight_through, wants_gradients
from .recurrent_weight import Int8Recurrent

States = tuple[Tensor, ...]


class _Layers(Int8Recurrent):
    """An INT8 recurrent layer, or a stack of them: arguments and results of `nn.LSTM` and `nn.GRU`."""

    proj_size = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        static: bool = True,
        activation_bits: int = 8,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        ends = ("", "_reverse") if bidirectional else ("",)
        suffixes = [[f"_l{layer}{end}" for end in ends] for layer in range(num_layers)]
        super().__init__(input_size, hidden_size, bias, suffixes, static, activation_bits, dtype)
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional

    @classmethod
    def like(cls, module: Any, static: bool = True, activation_bits: int = 8) -> Any:
        """One without values in the place of a float layer."""
        new = cls(
            module.input_size,
            module.hidden_size,
            module.num_layers,
            module.bias,
            module.batch_first,
            module.dropout,
            module.bidirectional,
            static,
            activation_bits,
            module.weight_ih_l0.dtype,
        )
        return new.train(module.training)

    def flatten_parameters(self) -> None:
        """As torch's; nothing to do."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """See `nn.LSTM` and `nn.GRU`. The gradient is that of the float layer."""
        if isinstance(input, PackedSequence):
            return self._packed_forward(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(
                f"{type(self).__name__} got an input of {input.dim()} axes; expected 3, or 2 without a batch"
            )
        batch_axis = 0 if self.batch_first else 1
        unbatched = input.dim() == 2
        x = input.unsqueeze(batch_axis) if unbatched else input
        states = self._states(x, x.shape[batch_axis], hx if hx is None or not unbatched else _each(hx, _add_batch))
        output, *last = self._run(x, states, None)
        if unbatched:
            return output.squeeze(batch_axis), self._last([state.squeeze(1) for state in last])
        return output, self._last(last)

    def _packed_forward(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        rows, sizes, order, back = packed
        states = self._states(rows, int(sizes[0]), hx)
        if order is not None and hx is not None:
            states = tuple(state.index_select(1, order) for state in states)
        output, *last = self._run(rows, states, sizes)
        if back is not None:
            last = [state.index_select(1, back) for state in last]
        return PackedSequence(output, sizes, order, back), self._last(last)

    def _states(self, x: Tensor, batch: int, hx: Any) -> States:
        shape = self.num_layers * len(self.suffixes[0]), batch, self.hidden_size
        if hx is None:
            return tuple(x.new_zeros(shape) for _ in range(self.state_count))
        states = hx if isinstance(hx, (tuple, list)) else (hx,)
        if len(states) != self.state_count or any(state.shape != shape for state in states):
            found = ", ".join(str(list(state.shape)) for state in states)
            raise ValueError(
                f"{type(self).__name__} got states of shape {found}; expected {self.state_count} of {list(shape)}"
            )
        return tuple(states)

    def _run(self, x: Tensor, states: States, sizes: Tensor | None) -> States:
        """The output and the last states, in x's dtype."""
        if not wants_gradients(x, *states):
            return self._compute(x, states, sizes)

        def compute(x: Tensor, *states: Tensor) -> States:
            return self._compute(x, states, sizes)

        def in_float(x: Tensor, *states: Tensor) -> States:
            return self._in_float(x, states, sizes)

        found: States = straight_through(compute, in_float, x, *states)
        return found

    def _compute(self, x: Tensor, states: States, sizes: Tensor | None) -> States:
        dtype = x.dtype
        directions = len(self.suffixes[0])
        last = []
        for layer in range(self.num_layers):
            if layer and self.training and self.dropout:
                x = F.dropout(x, self.dropout)
            own = states
            if self.num_layers > 1:
                own = tuple(state[layer * directions : (layer + 1) * directions] for state in states)
            x, *new = self._steps(self.gate_inputs(x, layer), own, self._packed("hh", layer), sizes, self.batch_first)
            last.append(new)
        found = last[0] if self.num_layers == 1 else [torch.cat(parts) for parts in zip(*last, strict=True)]
        return x.to(dtype), *(state.to(dtype) for state in found)

    def _steps(self, inputs: Tensor, states: States, weight: Any, sizes: Tensor | None, batch_first: bool) -> States:
        """See `numerics.lstm`."""
        raise NotImplementedError

    def _in_float(self, x: Tensor, states: States, sizes: Tensor | None) -> States:
        weights = list(self.float_weights(x.dtype))
        same = tuple(state.to(x.dtype) for state in states)
        function: Any = torch.lstm if self.state_count == 2 else torch.gru
        given: Any = same if self.state_count == 2 else same[0]
        rest = self.bias, self.num_layers, 0.0, False, self.bidirectional
        if sizes is not None:
            return function(x, sizes, given, weights, *rest)
        return function(x, given, weights, *rest, self.batch_first)

    def _last(self, states: Any) -> Any:
        return tuple(states) if self.state_count > 1 else states[0]

    def extra_repr(self) -> str:
        """What `print` shows."""
        kind = "dynamic" if self.input_scale is None else "static"
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bias={self.bias}, "
            f"batch_first={self.batch_first}, bidirectional={self.bidirectional}, {kind}"
        )


class _LSTMSteps:
    gates = numerics.LSTM_GATES
    state_count = 2

    def _steps(self, inputs: Tensor, states: States, weight: Any, sizes: Tensor | None, batch_first: bool) -> States:
        return torch.ops.optimum_int8.lstm(inputs, *states, *weight, sizes, batch_first)


class _GRUSteps:
    gates = numerics.GRU_GATES
    state_count = 1

    def _steps(self, inputs: Tensor, states: States, weight: Any, sizes: Tensor | None, batch_first: bool) -> States:
        return torch.ops.optimum_int8.gru(inputs, *states, *weight, sizes, batch_first)


class Int8LSTM(_LSTMSteps, _Layers):
    """`nn.LSTM` with int8 weights; see `Int8Recurrent` for what is stored and rounded."""


class Int8GRU(_GRUSteps, _Layers):
    """`nn.GRU` with int8 weights; see `Int8Recurrent` for what is stored and rounded."""


class _Cell(Int8Recurrent):
    """An INT8 recurrent cell: arguments and results of `nn.LSTMCell` and `nn.GRUCell`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        static: bool = True,
        activation_bits: int = 8,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, [[""]], static, activation_bits, dtype)

    @classmethod
    def like(cls, module: Any, static: bool = True, activation_bits: int = 8) -> Any:
        """One without values in the place of a float cell."""
        dtype = module.weight_ih.dtype
        return cls(module.input_size, module.hidden_size, module.bias, static, activation_bits, dtype)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """See `nn.LSTMCell` and `nn.GRUCell`. The gradient is that of the float cell."""
        if input.dim() not in (1, 2):
            raise ValueError(
                f"{type(self).__name__} got an input of {input.dim()} axes; expected 2, or 1 without a batch"
            )
        x = input.unsqueeze(0) if input.dim() == 1 else input
        shape = x.shape[0], self.hidden_size
        if hx is None:
            states: States = tuple(x.new_zeros(shape) for _ in range(self.state_count))
        else:
            given = hx if isinstance(hx, (tuple, list)) else (hx,)
            states = tuple(state.unsqueeze(0) for state in given) if input.dim() == 1 else tuple(given)
            if len(states) != self.state_count or any(state.shape != shape for state in states):
                found = ", ".join(str(list(state.shape)) for state in given)
                raise ValueError(
                    f"{type(self).__name__} got states of shape {found} for an input of shape {list(input.shape)}; expected "
                    f"{self.state_count} with {self.hidden_size} units"
                )
        if wants_gradients(x, *states):
            last: States = straight_through(self._compute, self._in_float, x, *states)
        else:
            last = self._compute(x, *states)
        if input.dim() == 1:
            last = tuple(state.squeeze(0) for state in last)
        return tuple(last) if self.state_count > 1 else last[0]

    def _compute(self, x: Tensor, *states: Tensor) -> States:
        inputs = self.gate_inputs(x, 0).unsqueeze(0)
        before = tuple(state.unsqueeze(0) for state in states)
        _, *last = self._steps(inputs, before, self._packed("hh", 0), None, False)
        return tuple(state.squeeze(0).to(x.dtype) for state in last)

    def _steps(self, inputs: Tensor, states: States, weight: Any, sizes: Tensor | None, batch_first: bool) -> States:
        """See `numerics.lstm`."""
        raise NotImplementedError

    def _in_float(self, x: Tensor, *states: Tensor) -> States:
        weights = list(self.float_weights(x.dtype))
        same = [state.to(x.dtype) for state in states]
        return torch.lstm_cell(x, same, *weights) if self.state_count == 2 else (torch.gru_cell(x, same[0], *weights),)

    def extra_repr(self) -> str:
        """What `print` shows."""
        kind = "dynamic" if self.input_scale is None else "static"
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}, {kind}"


class Int8LSTMCell(_LSTMSteps, _Cell):
    """`nn.LSTMCell` with int8 weights; see `Int8Recurrent` for what is stored and rounded."""


class Int8GRUCell(_GRUSteps, _Cell):
    """`nn.GRUCell` with int8 weights; see `Int8Recurrent` for what is stored and rounded."""


INT8_RECURRENT: dict[type[nn.Module], Any] = {
    nn.LSTM: Int8LSTM,
    nn.GRU: Int8GRU,
    nn.LSTMCell: Int8LSTMCell,
    nn.GRUCell: Int8GRUCell,
}
"""torch's recurrent layers and cells that have an INT8 form."""


def recurrent_from_float(
    module: nn.Module,
    input_range: tuple[float, float] | None = None,
    per_channel: bool = True,
    activation_bits: int = 8,
) -> Int8Recurrent:
    """The INT8 form of a layer or cell; `input_range` None makes it dynamic."""
    new: Int8Recurrent = INT8_RECURRENT[type(module)].like(module, input_range is not None, activation_bits)
    new.quantize_from(module, input_range, per_channel)
    return new


def recurrent_obstacle(module: nn.Module) -> str:
    """Why an INT8 layer or cell would not compute the same, or nothing."""
    name = type(module).__name__
    if type(module) not in INT8_RECURRENT:
        return f"{name} is a recurrent layer of its own kind; expected torch's LSTM, GRU or one of their cells itself"
    if getattr(module, "proj_size", 0):
        return "its hidden state is projected (proj_size), which the INT8 steps do not do"
    of_cell = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
    expected = set(getattr(module, "_flat_weights_names", of_cell))
    found = {key for key, parameter in module._parameters.items() if parameter is not None}
    if found != expected or module._buffers or module._modules:
        return f"{name} has other tensors than torch's, by which its weights may be computed"
    largest = max(parameter.shape[1] for key, parameter in module.named_parameters() if key.startswith("weight_"))
    if largest > numerics.MAX_REDUCTION:
        return f"{largest} inputs can overflow int32; at most {numerics.MAX_REDUCTION}"
    return ""


def _each(states: Any, change: Any) -> Any:
    return tuple(change(state) for state in states) if isinstance(states, (tuple, list)) else change(states)


def _add_batch(state: Tensor) -> Tensor:
    return state.unsqueeze(1)
