"""Programs of the native library: built once in Python, run by one call. The fields are documented in csrc/optimum_int8.h."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import KernelError
from ..numerics import CONV_ACTIVATIONS, Window
from .interface import (
    MASKS,
    NORMS,
    OPERATORS,
    OPS,
    STATUSES,
    Call,
    NativeProgram,
    Value,
)
from .native import current_isa, library
from .prepared import prepared_weight
from .structs import ImageWindow

_NAMES = {"activation": CONV_ACTIVATIONS, "final_activation": CONV_ACTIVATIONS, "kind": NORMS}
"""Fields that are numbers of names."""
_BAD_INDEX = STATUSES.index("bad_index")
_ERRORS = {
    "bad_argument": "bad argument",
    "out_of_memory": "out of memory",
    "bad_index": "an index is outside the embedding table",
    "unsupported_isa": "instruction set not available",
}


class KeysOfCall(NamedTuple):
    """Keys of one kind: their mask, and how many each sequence has.

    Attributes:
        rows: of INT8 keys that a cache keeps, between sequences; 0 where they follow one another.
        shared: sequences that follow one another and read the same of these.
    """

    mask: Tensor | None
    length: int
    rows: int = 0
    shared: int = 1


class _Frozen(NamedTuple):
    """A program for one instruction set, and the instructions that it points to."""

    native: NativeProgram
    instructions: list[ctypes.Structure]


class Program:
    """Instructions over values; add them in order, then `run` as often as wanted, from any thread.

    A `spatial` program is run for each entry of the batch, and each of its values has a number of `rows` per entry of its own.

    Example: `p = Program(); x = p.external(4 * 64); q = p.local(64); p.add("quantize", [x], [q], columns=64, output_scale=0.1,
    output_zero_point=7); p.run(1, rows, [tensor])`.
    """

    def __init__(self, spatial: bool = False) -> None:
        self.spatial = spatial
        self._instructions: list[Any] = []  # structs of `OPERATORS`
        self._values: list[Value] = []
        self._arena_row_bytes = 0
        self._free: list[tuple[int, int]] = []  # offset and bytes of released values
        self._externals = 0
        self._kept: list[Any] = []  # the instructions hold bare pointers into these
        self._weights: list[tuple[int, Tensor]] = []  # instructions that may read the prepared form of a weight
        self._native: dict[int, _Frozen] = {}

    def __len__(self) -> int:
        return len(self._instructions)

    def external(self, row_bytes: int, periodic: bool = False, rows: int = 0) -> int:
        """A value in a tensor of the caller, in the order of `run`'s `tensors`; `periodic` if it holds `length` rows for all the batch."""
        self._externals += 1
        return self._value(Value(self._externals - 1, row_bytes, 0, periodic, rows))

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
        return self._value(Value(-1, row_bytes, offset, False, rows))

    def release(self, index: int) -> None:
        """Say that no later instruction reads a value: its place in the arena may be used again."""
        value = self._values[index]
        if value.external < 0:
            size = _padded_bytes(value.row_bytes, value.rows) if self.spatial else value.row_bytes
            self._free.append((value.offset, size))

    def tensors(self) -> list[Tensor]:
        """The tensors that the instructions read in place."""
        return [kept for kept in self._kept if isinstance(kept, Tensor)]

    def _value(self, value: Value) -> int:
        self._values.append(value)
        return len(self._values) - 1

    def add(self, op: str, inputs: Sequence[int], outputs: Sequence[int], **fields: Any) -> None:
        """Append an instruction of the operator `op`.

        Args:
            op: a name of `interface.OPS`.
            inputs, outputs: values, in the order of the operator's enums in csrc/optimum_int8.h; -1 for one that is absent.
            fields: those of the operator's struct there: tensors for pointers, sequences for arrays, names for enums.

        Raises:
            ValueError: no such operator, or no such name of an activation or norm.
            KernelError: the operator has no such field.
        """
        if op not in OPERATORS:
            raise ValueError(f"no instruction {op!r} in kernels/interface.py; expected one of {', '.join(OPS)}")
        instruction: Any = OPERATORS[op](op=OPS.index(op))
        instruction.input[:] = [*inputs, *[-1] * (len(instruction.input) - len(inputs))]
        instruction.output[:] = [*outputs, *[-1] * (len(instruction.output) - len(outputs))]
        for name, value in fields.items():
            if not hasattr(instruction, name):
                raise KernelError(f"the operator {op!r} has no field {name!r}; see csrc/optimum_int8.h")
            if name == "weight" and op in ("linear", "conv", "recurrent") and value.dtype == torch.int8:
                self._weights.append((len(self._instructions), value))
            self._set(instruction, name, value)
        self._instructions.append(instruction)
        self._native.clear()

    def _set(self, instruction: Any, name: str, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            getattr(instruction, name)[: len(value)] = value
            return
        if isinstance(value, Tensor):
            self._kept += [value, value.untyped_storage()]  # `p.data = ...` gives a parameter another storage
            value = value.data_ptr()
        elif name in _NAMES:
            value = _NAMES[name].index(value)
        setattr(instruction, name, value)

    def run(
        self,
        batch: int,
        length: int,
        tensors: Sequence[Tensor],
        mask: Tensor | None = None,
        key_length: int | None = None,
        skip_padding: bool = False,
        others: Sequence[KeysOfCall] = (),
        key_rows: int = 0,
    ) -> None:
        """Run over `batch * length` rows; results are written into the tensors that the program names as outputs.

        Args:
            tensors: the external values in order, contiguous rows, of the dtypes that the instructions name.
            mask: attention mask, boolean (True attends) or float (added), broadcastable to `[batch, heads, length, key_length]`.
            key_length: length of keys and values where it differs.
            others: the second kind of keys and those after it, where attention cores read several.
            skip_padding: tokens that a padding mask (one row per sequence) hides are not computed; their results are zero.
            key_rows: rows between the sequences of cached INT8 keys and values; 0 where they follow one another.

        Raises:
            KernelError: the library refused.
            IndexError: an embedding index is out of range.
        """
        loaded = library()
        if loaded is None:
            raise KernelError("a program needs the native library, which is not here; see `optimum-int8 env`")
        if batch == 0 or length == 0:
            return  # no row to compute; the kernels divide work by rows
        isa = current_isa()
        native = (self._native.get(isa) or self._freeze(isa)).native
        call = Call(batch, length, (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors]))
        call.skip_padding = skip_padding
        kept = [set_keys(call, 0, KeysOfCall(mask, length if key_length is None else key_length, key_rows))]
        for position, keys in enumerate(others, 1):
            kept.append(set_keys(call, position, keys))
        check(loaded.run(isa, ctypes.addressof(native), ctypes.addressof(call)), self)

    @property
    def external_count(self) -> int:
        """Values in tensors of the caller."""
        return self._externals

    def external_index(self, value: int) -> int:
        """The place of a value among the tensors of the caller; -1 of one in the arena."""
        return int(self._values[value].external)

    def address(self, isa: int) -> int:
        """Where the library finds the program as it is for an instruction set."""
        return ctypes.addressof((self._native.get(isa) or self._freeze(isa)).native)

    def _freeze(self, isa: int) -> _Frozen:
        # copies: each instruction set has its own prepared form of a weight
        instructions = [type(instruction).from_buffer_copy(instruction) for instruction in self._instructions]
        for index, weight in self._weights:
            prepared = prepared_weight(weight, isa)
            instructions[index].prepared = None if prepared is None else prepared.data_ptr()
            self._kept.append(prepared)
        native = NativeProgram(
            (ctypes.c_void_p * len(instructions))(*map(ctypes.addressof, instructions)),
            (Value * len(self._values))(*self._values),
            len(instructions),
            len(self._values),
            self._arena_row_bytes,
            self.spatial,
        )
        frozen = self._native[isa] = _Frozen(native, instructions)
        return frozen


def check(status: int, program: Program) -> None:
    """Raise what the library says of a run: nothing where it is done.

    Raises:
        KernelError, IndexError: see `Program.run`.
    """
    if status == _BAD_INDEX:
        raise IndexError(_ERRORS["bad_index"])
    if status:
        raise KernelError(
            f"the native library refused a program of {len(program)} instructions: {_ERRORS[STATUSES[status]]}"
        )


def window(shape: Window, height: int, width: int) -> ImageWindow:
    """The field `window` of an instruction, for an image of this size."""
    return ImageWindow(height, width, *shape.output_size(height, width), *shape[:6], *shape[8:10])


def _padded_bytes(row_bytes: int, rows: int) -> int:
    """Of a local value: whole tiles of rows, and what vectors read past the end."""
    return ((rows + 31) // 32 * 32 * row_bytes + 64 + 63) // 64 * 64


def set_keys(call: Call, position: int, given: KeysOfCall) -> Tensor | None:
    """Describe keys of a call and their mask; returns the tensor that must outlive the call.

    Raises:
        KernelError: there are none, or the mask is not one of theirs.
    """
    mask, length, between, shared = given
    if length == 0:
        raise KernelError("an attention core has no keys; expected at least one")
    keys = call.keys[position]
    keys.length = length
    keys.rows = between
    keys.shared = shared
    if mask is None:
        return None
    if mask.dtype not in (torch.bool, torch.float32):
        mask = mask.to(torch.float32)
    while mask.dim() < 4:
        mask = mask.unsqueeze(0)
    if mask.shape[-1] != length:
        mask = mask.expand(*mask.shape[:-1], length)
    if mask.stride(-1) != 1:
        mask = mask.contiguous()
    if mask.shape[0] not in (1, call.batch) or mask.shape[2] not in (1, call.length):
        raise KernelError(
            f"attention mask of shape {tuple(mask.shape)} does not fit batch {call.batch}, queries {call.length}"
        )
    keys.mask = mask.data_ptr()
    keys.mask_kind = MASKS.index("bool" if mask.dtype == torch.bool else "float")
    keys.mask_stride[:] = [0 if mask.shape[i] == 1 else mask.stride(i) for i in range(3)]
    return mask
