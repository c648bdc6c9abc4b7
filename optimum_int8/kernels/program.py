"""Programs of the native library: built once in Python, run by one call. The fields are documented in csrc/optimum_int8.h."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import KernelError
from ..numerics import CONV_ACTIVATIONS, Window
from .library import current_isa, library
from .prepared import prepared_weight

OPS = (
    "quantize",
    "linear",
    "norm",
    "attention",
    "embedding",
    "conv",
    "max_pool",
    "avg_pool",
    "quantize_sample",
    "add",
    "float_attention",
)
ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu", "tanh")
NORMS = ("none", "layer_norm", "rms_norm")
_NO_MASK, _BOOL_MASK, _FLOAT_MASK = range(3)
_ERRORS = {
    1: "bad argument",
    2: "out of memory",
    3: "an index is outside the embedding table",
    4: "instruction set not available",
}

_i32, _i64, _f32, _ptr = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class _Value(ctypes.Structure):
    _fields_ = [("external", _i32), ("row_bytes", _i32), ("offset", _i64), ("periodic", _i32), ("rows", _i32)]


class _Window(ctypes.Structure):
    _fields_ = [
        ("size", _i32 * 2),
        ("out_size", _i32 * 2),
        ("kernel", _i32 * 2),
        ("stride", _i32 * 2),
        ("padding", _i32 * 2),
        ("dilation", _i32 * 2),
        ("depthwise", _i32),
        ("final", _i32),
        ("floats", _i32),
        ("padding_counts", _i32),
    ]


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("op", _i32),
        ("activation", _i32),
        ("norm", _i32),
        ("causal", _i32),
        ("input", _i32 * 6),
        ("output", _i32 * 4),
        ("columns", _i32),
        ("reduction", _i32),
        ("groups", _i32),
        ("kv_groups", _i32),
        ("column", _i32 * 3),
        ("scale_column", _i32 * 3),
        ("rows", _i64),
        ("weight", _ptr),
        ("weight_scale", _ptr),
        ("weight_sum", _ptr),
        ("bias", _ptr),
        ("output_scales", _ptr),
        ("input_scale", _f32 * 3),
        ("input_zero_point", _i32),
        ("output_scale", _f32),
        ("output_zero_point", _i32),
        ("parameter", _f32),
        ("key_side", _i32),
        ("window", _ptr),
        ("prepared", _ptr),
        ("bfloat16", _i32),
        ("residual_zero_point", _i32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [
        ("instructions", ctypes.POINTER(_Instruction)),
        ("values", ctypes.POINTER(_Value)),
        ("instruction_count", _i32),
        ("value_count", _i32),
        ("arena_row_bytes", _i64),
        ("spatial", _i32),
        ("reserved", _i32),
    ]


class _Call(ctypes.Structure):
    _fields_ = [
        ("batch", _i32),
        ("length", _i32),
        ("external", ctypes.POINTER(_ptr)),
        ("mask", _ptr),
        ("mask_kind", _i32),
        ("key_length", _i32),
        ("mask_stride", _i64 * 3),
        ("skip_padding", _i32),
        ("reserved", _i32),
    ]


class Program:
    """Instructions over values; add them in order, then `run` as often as wanted, from any thread.

    A `spatial` program is run for each entry of the batch, and each of its values has a number of `rows` per entry of its own.

    Example: `p = Program(); x = p.external(4 * 64); q = p.local(64); p.add("quantize", [x], [q], columns=64, output_scale=0.1,
    output_zero_point=7); p.run(1, rows, [tensor])`.
    """

    def __init__(self, spatial: bool = False) -> None:
        self.spatial = spatial
        self._instructions: list[_Instruction] = []
        self._values: list[_Value] = []
        self._arena_row_bytes = 0
        self._free: list[tuple[int, int]] = []  # offset and bytes of released values
        self._externals = 0
        self._kept: list[Any] = []  # the instructions hold bare pointers into these
        self._weights: list[tuple[int, Tensor]] = []  # instructions that may read the prepared form of a weight
        self._native: dict[int, _Program] = {}

    def __len__(self) -> int:
        return len(self._instructions)

    def external(self, row_bytes: int, periodic: bool = False, rows: int = 0) -> int:
        """A value in a tensor of the caller, in the order of `run`'s `tensors`; `periodic` if it holds `length` rows for all the batch."""
        self._externals += 1
        return self._value(_Value(self._externals - 1, row_bytes, 0, periodic, rows))

    def local(self, row_bytes: int, rows: int = 0) -> int:
        """A value in the library's arena. Rows there are padded to a multiple of 32, so any width keeps values aligned."""
        needed = _padded_bytes(row_bytes, rows) if self.spatial else row_bytes
        fitting = [space for space in self._free if space[1] >= needed]
        if fitting:
            offset, size = min(fitting, key=lambda space: space[1])
            self._free.remove((offset, size))
            if size > needed:
                self._free.append((offset + needed, size - needed))
        else:
            offset = self._arena_row_bytes
            self._arena_row_bytes += needed
        return self._value(_Value(-1, row_bytes, offset, False, rows))

    def release(self, index: int) -> None:
        """Say that no later instruction reads a value: its place in the arena may be used again."""
        value = self._values[index]
        if value.external < 0:
            size = _padded_bytes(value.row_bytes, value.rows) if self.spatial else value.row_bytes
            self._free.append((value.offset, size))

    def tensors(self) -> list[Tensor]:
        """The tensors that the instructions read where they lie."""
        return [kept for kept in self._kept if isinstance(kept, Tensor)]

    def _value(self, value: _Value) -> int:
        self._values.append(value)
        return len(self._values) - 1

    def add(self, op: str, inputs: Sequence[int], outputs: Sequence[int], **fields: Any) -> None:
        """Append an instruction. `fields` are those of `oi8_instruction`: tensors for pointers, sequences for arrays, the names in
        `CONV_ACTIVATIONS` and `NORMS` for these two, what `window` returns for the window."""
        instruction = _Instruction(op=OPS.index(op))
        instruction.input[:] = [*inputs, *[-1] * (6 - len(inputs))]
        instruction.output[:] = [*outputs, *[-1] * (4 - len(outputs))]
        for name, value in fields.items():
            if name == "activation":
                value = CONV_ACTIVATIONS.index(value)
            elif name == "norm":
                value = NORMS.index(value)
            elif isinstance(value, _Window):
                self._kept.append(value)
                value = ctypes.addressof(value)
            elif isinstance(value, Tensor):
                self._kept += [value, value.untyped_storage()]  # `p.data = ...` gives a parameter another storage
                if name == "weight" and value.dtype == torch.int8 and op in ("linear", "conv"):
                    self._weights.append((len(self._instructions), value))
                value = value.data_ptr()
            elif isinstance(value, (list, tuple)):
                getattr(instruction, name)[: len(value)] = value
                continue
            setattr(instruction, name, value)
        self._instructions.append(instruction)
        self._native.clear()

    def run(
        self,
        batch: int,
        length: int,
        tensors: Sequence[Tensor],
        mask: Tensor | None = None,
        key_length: int | None = None,
        skip_padding: bool = False,
    ) -> None:
        """Run over `batch * length` rows; results are written into the tensors that the program names as outputs.

        Args:
            tensors: the external values in order, contiguous rows, of the dtypes that the instructions name.
            mask: attention mask, boolean (True attends) or float (added), broadcastable to `[batch, heads, length, key_length]`.
            key_length: length of keys and values where it differs.
            skip_padding: tokens that a padding mask (one row per sequence) hides are not computed; their results are zero.

        Raises:
            KernelError: the library refused.
            IndexError: an embedding index is out of range.
        """
        loaded = library()
        if loaded is None:
            raise KernelError("a program needs the native library, which is not here; see `optimum-int8 env`")
        isa = current_isa()
        native = self._native.get(isa) or self._freeze(isa)
        call = _Call(batch, length, (_ptr * len(tensors))(*[t.data_ptr() for t in tensors]))
        call.key_length = length if key_length is None else key_length
        call.skip_padding = skip_padding
        if mask is not None:
            mask = set_mask(call, mask, batch)
        status = loaded.run(isa, ctypes.addressof(native), ctypes.addressof(call))
        if status == 3:
            raise IndexError(_ERRORS[status])
        if status:
            raise KernelError(
                f"the native library refused a program of {len(self)} instructions: {_ERRORS.get(status, status)}"
            )

    def _freeze(self, isa: int) -> _Program:
        for index, weight in self._weights:
            prepared = prepared_weight(weight, isa)
            self._instructions[index].prepared = None if prepared is None else prepared.data_ptr()
            self._kept.append(prepared)
        native = _Program(
            (_Instruction * len(self._instructions))(*self._instructions),
            (_Value * len(self._values))(*self._values),
            len(self._instructions),
            len(self._values),
            self._arena_row_bytes,
            self.spatial,
        )
        self._native[isa] = native
        return native


def window(shape: Window, height: int, width: int, depthwise: bool = False, final: str = "none") -> _Window:
    """The field `window` of an instruction, for an image of this size."""
    out = _Window((height, width), shape.output_size(height, width), shape[:2], shape[2:4], shape[4:6], shape[8:10])
    out.depthwise, out.final = depthwise, CONV_ACTIVATIONS.index(final)
    return out


def _padded_bytes(row_bytes: int, rows: int) -> int:
    """Of a local value: whole tiles of rows, and what vectors read past the end."""
    return ((rows + 31) // 32 * 32 * row_bytes + 64 + 63) // 64 * 64


def set_mask(call: _Call, mask: Tensor, batch: int) -> Tensor:
    """Describe `mask` in `call`; returns the tensor that must outlive the call."""
    if mask.dtype not in (torch.bool, torch.float32):
        mask = mask.to(torch.float32)
    while mask.dim() < 4:
        mask = mask.unsqueeze(0)
    if mask.shape[-1] != call.key_length:
        mask = mask.expand(*mask.shape[:-1], call.key_length)
    if mask.stride(-1) != 1:
        mask = mask.contiguous()
    if mask.shape[0] not in (1, batch) or mask.shape[2] not in (1, call.length):
        raise KernelError(
            f"attention mask of shape {tuple(mask.shape)} does not fit batch {batch}, queries {call.length}"
        )
    call.mask = mask.data_ptr()
    call.mask_kind = _BOOL_MASK if mask.dtype == torch.bool else _FLOAT_MASK
    call.mask_stride[:] = [0 if mask.shape[i] == 1 else mask.stride(i) for i in range(3)]
    return mask
