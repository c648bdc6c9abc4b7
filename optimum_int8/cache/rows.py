"""INT8 rows of keys or values that grow at their end in place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import numerics
from ..kernels import Program, library
from ..kernels.emission import append_fields, row_bytes


class Form(NamedTuple):
    """How keys, or values, are quantized: symmetric, zero point 128.

    Attributes:
        heads: of keys and values.
        columns: heads times head size.
        scale: float32, one for all; None where each row and head has its own.
    """

    heads: int
    columns: int
    scale: Tensor | None

    def has_sizes(self, states: Tensor, batch: int) -> bool:
        """Whether states have these heads."""
        return (*states.shape[:2], states.shape[3]) == (batch, self.heads, self.columns // self.heads)

    def fits(self, states: Tensor, batch: int) -> bool:
        """Whether float states are of this kind."""
        return states.dtype == torch.float32 and self.has_sizes(states, batch)

    def is_like(self, other: Form) -> bool:
        """Whether both give the same rows."""
        if self[:2] != other[:2] or (self.scale is None) != (other.scale is None):
            return False
        return self.scale is None or other.scale is None or torch.equal(self.scale, other.scale)


class Int8Rows:
    """Keys, or values, of one layer: `[batch, room, columns]`, of which the cache layer knows how many are filled.

    Attributes:
        codes: uint8 `[batch, room, columns padded to what kernels read]`.
        scales: float32 `[batch, room, heads]`, or None with one scale for all.
        shared: entries of the batch that follow one another and have one entry of these.
    """

    def __init__(self, form: Form, batch: int, room: int, shared: int = 1) -> None:
        self.form = form
        self.shared = shared
        width = row_bytes(form.columns, torch.uint8)
        self.codes = torch.empty(batch, room, width, dtype=torch.uint8, device="cpu")
        sizes = (batch, room, form.heads)
        self.scales = torch.empty(sizes, dtype=torch.float32, device="cpu") if form.scale is None else None

    @property
    def batch(self) -> int:
        """Entries of the batch."""
        return self.codes.shape[0] * self.shared

    @property
    def addresses(self) -> tuple[int, ...]:
        """Of the codes, and of the scales where there are some."""
        found = (self.codes.data_ptr(),)
        return found if self.scales is None else (*found, self.scales.data_ptr())

    @property
    def nbytes(self) -> int:
        """Bytes of memory, with the room."""
        return self.codes.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def append(self, states: Tensor, earlier: int) -> None:
        """Quantize float states `[batch, heads, length, head]` into the rows from `earlier` on."""
        rows = states.detach().transpose(1, 2).flatten(2).to(torch.float32).contiguous()
        batch, length, _ = rows.shape
        if library() is None:
            self._append_by_definition(rows, earlier)
            return
        program = Program()
        source = program.external(row_bytes(rows.shape[-1], torch.float32))
        kept = [program.external(row_bytes(self.form.columns, torch.uint8))]
        tensors = [rows, self.codes]
        if self.scales is not None:
            kept.append(program.external(4 * self.form.heads))
            tensors.append(self.scales)
        program.add("append_int8", [source], kept, key_side=1, **append_fields(*self.form))
        program.run(batch, length, tensors, key_length=earlier + length, key_rows=self.codes.shape[1])

    def _append_by_definition(self, rows: Tensor, earlier: int) -> None:
        batch, length, columns = rows.shape
        heads = rows.unflatten(2, (self.form.heads, columns // self.form.heads))
        codes, scales = numerics.symmetric_rows(heads, self.form.scale)
        place = slice(earlier, earlier + length)
        self.codes[:, place, :columns] = codes.flatten(2)
        if self.scales is not None:
            self.scales[:, place] = scales

    def states(self, length: int) -> Tensor:
        """The first rows as float32 states `[batch, heads, length, head]`."""
        heads, columns, scale = self.form
        codes = self.codes[:, :length, :columns].unflatten(2, (heads, columns // heads)).transpose(1, 2)
        if self.scales is not None:
            scale = self.scales[:, :length].transpose(1, 2).unsqueeze(-1)
        assert scale is not None
        found = numerics.dequantize_affine(codes, scale, numerics.SYMMETRIC_ZERO_POINT)
        return found if self.shared == 1 else found.repeat_interleave(self.shared, 0)

    def are_all(self, entries: Tensor) -> bool:
        """Whether these entries of the batch, in this order, have the rows that there are: all as they are, or beams of one sentence that
        changed places."""
        return entries.numel() == self.batch and torch.equal(
            entries // self.shared, torch.arange(self.batch) // self.shared
        )

    def taken(self, entries: Tensor, length: int, room: int) -> Int8Rows:
        """A copy of the first rows of these entries of the batch, with other room, and an entry of its own for each."""
        found = Int8Rows(self.form, entries.numel(), room)
        for own, new in ((self.codes, found.codes), (self.scales, found.scales)):
            if own is not None and new is not None:
                new[:, :length] = own[:, :length].index_select(0, entries // self.shared)
        return found

    def with_room(self, length: int, room: int) -> Int8Rows:
        """The same of all entries."""
        return self.taken(torch.arange(self.batch), length, room)
