"""What INT8 recurrent layers and cells share: their weights, stored under torch's names and read as floats."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import kernels, numerics
from .dequantized import DequantizedWeight, initializing, is_traced, not_writable
from .linear import packed_linear
from .weight import FloatDtype

_PACKED = ("panels", "sums", "scales", "added")
"""What kernels read of the weights of a layer and side: the matrix, sums of its rows, scales, and biases where there are some."""


class Matrix(NamedTuple):
    """Place of a stored weight: `weight_hh_l1_reverse` is `("hh", 1, 1)`."""

    side: str
    layer: int
    direction: int


class Int8Recurrent(FloatDtype):
    """Base of INT8 recurrent layers and cells. Subclasses say how the states are updated.

    Stored, under torch's names: of each layer and direction `weight_ih_l0` and `weight_hh_l0` int8 `[gates * hidden, in, 1]`, with
    `weight_ih_l0_scale` and `weight_hh_l0_scale` float32 `[gates * hidden]`, `bias_ih_l0` and `bias_hh_l0` float32; when static
    `input_scale` and `input_zero_point` of the first layer's input. Cells leave out `_l0`. Hidden states, and so the inputs of further
    layers, have a scale and zero point per row, always. Reading a weight or a bias gives the float one.

    Attributes:
        suffixes: by layer and direction, what the names of its weights end in.
    """

    gates: int
    state_count: int
    input_scale: Tensor | None
    input_zero_point: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        suffixes: Sequence[Sequence[str]],
        static: bool,
        activation_bits: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self._matrices: dict[str, Matrix] = {}
        self._biases: list[str] = []
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.suffixes = suffixes
        self.activation_bits = activation_bits
        self.dtype = dtype
        rows = self.gates * hidden_size
        matrices: dict[str, Matrix] = {}
        biases = []
        for layer, of_directions in enumerate(suffixes):
            for direction, suffix in enumerate(of_directions):
                for side in ("ih", "hh"):
                    name = f"weight_{side}{suffix}"
                    matrices[name] = Matrix(side, layer, direction)
                    shape = rows, self._columns(side, layer), 1
                    self.register_buffer(name, torch.empty(shape, dtype=torch.int8))
                    self.register_buffer(f"{name}_scale", torch.empty(rows, dtype=torch.float32))
                    if bias:
                        biases.append(f"bias_{side}{suffix}")
                        self.register_buffer(biases[-1], torch.empty(rows, dtype=torch.float32))
        self._matrices = matrices
        self._biases = biases
        self._qparam_buffers(("input_scale", "input_zero_point"), static)
        self._show_dtype()

    def _columns(self, side: str, layer: int) -> int:
        if side == "hh":
            return self.hidden_size
        return self.hidden_size * len(self.suffixes[0]) if layer else self.input_size

    def quantize_from(
        self, module: nn.Module, input_range: tuple[float, float] | None = None, per_channel: bool = True
    ) -> None:
        """Take the values of a float module of the same sizes; `input_range` is that of the first layer's input, where it is static."""
        for name in self._matrices:
            q, weight_scale = numerics.quantize_weight(getattr(module, name), per_channel)
            self._buffers[name] = q.unsqueeze(-1)
            self._buffers[f"{name}_scale"] = weight_scale
        for name in self._biases:
            self._buffers[name] = getattr(module, name).detach().to(torch.float32).clone()
        self._set_input_range(input_range, self.activation_bits)
        self.finish_loading()

    @property
    def products_per_row(self) -> int:
        """See `Int8Module`."""
        rows = self.gates * self.hidden_size
        return sum(rows * self._columns(matrix.side, matrix.layer) for matrix in self._matrices.values())

    def finish_loading(self) -> None:
        """See `Int8Module.finish_loading`."""
        if not self._matrices.keys() <= self._buffers.keys():
            return
        for layer, suffixes in enumerate(self.suffixes):
            inputs = torch.cat([self._take(f"weight_ih{suffix}") for suffix in suffixes])
            hidden = torch.cat([kernels.by_blocks(self._take(f"weight_hh{suffix}"), self.gates) for suffix in suffixes])
            scales = self._stored("weight_ih", suffixes, "_scale"), self._stored("weight_hh", suffixes, "_scale")
            made = {
                "panels_ih": kernels.pack(inputs),
                "sums_ih": kernels.row_sums(inputs),
                "scales_ih": torch.cat(scales[0]),
                "panels_hh": kernels.pack(hidden),
                "sums_hh": kernels.row_sums(hidden),
                "scales_hh": torch.cat([kernels.by_blocks(scale, self.gates) for scale in scales[1]]),
            }
            if self.bias:
                made["added_ih"] = torch.cat(self._stored("bias_ih", suffixes))
                added = self._stored("bias_hh", suffixes)
                made["added_hh"] = torch.cat([kernels.by_blocks(bias, self.gates) for bias in added])
            for name, tensor in made.items():
                self.register_buffer(f"{name}_{layer}", tensor, persistent=False)

    def _is_packed(self) -> bool:
        return "panels_ih_0" in self._buffers

    def release(self) -> None:
        """The inverse of `finish_loading`."""
        if not self._is_packed():
            return
        for name in self._matrices:
            self._buffers[name] = self.quantized_weight(name)
        for layer in range(len(self.suffixes)):
            for name in (f"{part}_{side}_{layer}" for part in _PACKED for side in ("ih", "hh")):
                self._buffers.pop(name, None)
                self._non_persistent_buffers_set.discard(name)

    def _take(self, name: str) -> Tensor:
        return self._buffers.pop(name).squeeze(-1)  # type: ignore[union-attr]

    def _stored(self, name: str, suffixes: Sequence[str], end: str = "") -> list[Tensor]:
        return [self._buffers[f"{name}{suffix}{end}"] for suffix in suffixes]  # type: ignore[misc]

    def _packed(self, side: str, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        panels, sums, scales, added = (self._buffers.get(f"{part}_{side}_{layer}") for part in _PACKED)
        return panels, sums, scales, added  # type: ignore[return-value]

    def quantized_weight(self, name: str) -> Tensor:
        """A weight as it is stored: int8 `[gates * hidden, in, 1]`."""
        stored = self._buffers.get(name)
        if stored is not None:
            return stored
        matrix = self._matrices[name]
        panels = self._packed(matrix.side, matrix.layer)[0]
        rows = self.gates * self.hidden_size
        directions = len(self.suffixes[matrix.layer])
        if matrix.side == "ih":
            whole = kernels.unpack(panels, directions * rows, self._columns("ih", matrix.layer))
            return whole[matrix.direction * rows :][:rows].unsqueeze(-1).clone()
        blocks = panels.chunk(directions)[matrix.direction]
        padded = kernels.unpack(blocks, len(blocks) * kernels.PANEL, self.hidden_size)
        return kernels.from_blocks(padded, self.gates, self.hidden_size).unsqueeze(-1)

    def dequantize(self, name: str) -> Tensor:
        """The float weight that the INT8 values of `weight_ih_l0` or another stand for."""
        scale: Any = self._buffers[f"{name}_scale"]
        return (self.quantized_weight(name).squeeze(-1).to(torch.float32) * scale.unsqueeze(-1)).to(self.dtype)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_matrices", ()):
            return self._float_weight(name)
        if name in self.__dict__.get("_biases", ()):
            bias: Tensor = self._buffers[name].to(self.dtype)  # type: ignore[union-attr]
            return bias if is_traced() else nn.Parameter(bias, requires_grad=False)
        return super().__getattr__(name)

    def _float_weight(self, name: str) -> Tensor:
        stored = self._buffers.get(name)
        if stored is not None and not initializing.get():
            return stored
        if is_traced():
            return self.dequantize(name)
        matrix = self._matrices[name]
        storage = self._packed(matrix.side, matrix.layer)[0] if stored is None else stored
        shape = self.gates * self.hidden_size, self._columns(matrix.side, matrix.layer)
        read = functools.partial(self.dequantize, name)
        return DequantizedWeight(read, lambda: storage.data_ptr() + matrix.direction, shape, storage, self.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        known = name in self.__dict__.get("_matrices", ()) or name in self.__dict__.get("_biases", ())
        if known and (name not in self._buffers or isinstance(value, nn.Parameter) or self._is_packed()):
            raise not_writable(f"assigning {name!r}")
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refuses a float weight or bias: nothing would read it."""
        if name in self._matrices or name in self._biases:
            raise not_writable(f"registering the parameter {name!r}")
        super().register_parameter(name, param)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._matrices:
            destination[prefix + name] = self.quantized_weight(name)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        self.release()
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.finish_loading()

    def float_weights(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """What torch's functions take: of each layer and direction both weights, then both biases."""
        for suffix in (suffix for of_layer in self.suffixes for suffix in of_layer):
            yield from (self.dequantize(f"weight_{side}{suffix}").to(dtype) for side in ("ih", "hh"))
            if self.bias:
                yield from (self._buffers[f"bias_{side}{suffix}"].to(dtype) for side in ("ih", "hh"))  # type: ignore[union-attr]

    def gate_inputs(self, x: Tensor, layer: int) -> Tensor:
        """What the input of a layer adds to the gates, for all its rows and directions: float32 `[..., directions * gates * hidden]`."""
        static = (self.input_scale, self.input_zero_point) if layer == 0 else (None, None)
        return packed_linear(x, (*static, self.activation_bits), *self._packed("ih", layer))
