"""Recurrent layers and cells: `nn.LSTM`, `nn.GRU`, `nn.LSTMCell` and `nn.GRUCell`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..config import Int8Config
from ..nn.base import Int8Module
from ..nn.recurrent import INT8_RECURRENT, recurrent_from_float, recurrent_obstacle
from ..nn.recurrent_weight import Int8Recurrent
from .kind import SiteKind
from .settings import Quantization, Storage, Visit

RECURRENT = "recurrent"


class RecurrentKind(SiteKind[nn.Module]):
    """The first layer's input, INT8 weights; hidden states are measured per row."""

    name = RECURRENT
    holds_weights = True
    float_in_training = (
        "recurrent layers stay FP32 in training; quantize the trained model with the dynamic or static approach"
    )

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, tuple(INT8_RECURRENT))

    def obstacle(self, name: str, module: nn.Module, config: Int8Config) -> str:
        """Projections, weights that follow from others, a class of its own."""
        return recurrent_obstacle(module)

    def rows(self, module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """The input, whose packed sequences are rows already."""
        return {"input": _tensor(inputs[0])}

    def from_float(self, module: nn.Module, how: Quantization) -> Int8Recurrent:
        """See `SiteKind`."""
        return recurrent_from_float(module, how.input_range, how.per_channel, how.activation_bits)

    def empty(self, module: nn.Module, how: Storage) -> Int8Recurrent | None:
        """See `SiteKind`."""
        if type(module) not in INT8_RECURRENT or recurrent_obstacle(module):
            return None
        new: Int8Recurrent = INT8_RECURRENT[type(module)].like(module, how.static, how.activation_bits)
        return new

    @contextlib.contextmanager
    def visited(
        self, model: nn.Module, int8: Mapping[str, Int8Module], visit: Visit, instead: Int8Module | None = None
    ) -> Iterator[None]:
        """The output alone is compared; what takes its place brings its states along."""
        with contextlib.ExitStack() as stack:
            for name, counterpart in int8.items():
                hook = _compared(name, counterpart, visit)
                handle = model.get_submodule(name).register_forward_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def multiply_adds(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> int:
        """See `SiteKind`."""
        weights = [parameter.numel() for name, parameter in module.named_parameters() if name.startswith("weight_")]
        return output.numel() // output.shape[-1] * sum(weights)


def _tensor(result: Any) -> Tensor:
    """The output of a call, or its input, as one tensor."""
    while not isinstance(result, Tensor):
        result = result.data if isinstance(result, PackedSequence) else result[0]
    return result


def _compared(name: str, int8: Int8Module, visit: Visit) -> Callable[..., Any]:
    def compared(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        given = inputs or tuple(named.values())
        computed: list[Any] = []

        def compute(function: Callable[..., Any]) -> Tensor:
            computed.append(function(*inputs, **named))
            return _tensor(computed[-1])

        chosen = visit(name, given, _tensor(output), lambda: compute(int8), lambda: compute(module.forward))
        return next((result for result in computed if _tensor(result) is chosen), None)

    return compared
