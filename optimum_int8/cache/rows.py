"""INT8 rows of keys or values that grow at their end in place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import numerics
from ..kernels import Program, library
from ..kernels.emission import row_bytes


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
        program.add("append_int8", [source], kept, **append_fields(self.form))
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

    def taken(self, batch_indices: Tensor, length: int, room: int) -> Int8Rows:
        """A copy with these entries of the batch, and other room."""
        groups = batch_indices // self.shared
        count = groups.numel()
        if self.shared > 1 and torch.equal(groups, torch.arange(count) // self.shared) and count == self.batch:
            return self  # beams of one sentence changed places
        found = Int8Rows(self.form, count, room)
        batch_indices = groups
        found.codes[:, :length] = self.codes[:, :length].index_select(0, batch_indices)
        if self.scales is not None and found.scales is not None:
            found.scales[:, :length] = self.scales[:, :length].index_select(0, batch_indices)
        return found

    def with_room(self, length: int, room: int) -> Int8Rows:
        """A copy of the first rows with other room, and an entry of its own for each of the batch."""
        found = Int8Rows(self.form, self.batch, room)
        for own, new in ((self.codes, found.codes), (self.scales, found.scales)):
            if own is not None and new is not None:
                rows = own[:, :length]
                new[:, :length] = rows if self.shared == 1 else rows.repeat_interleave(self.shared, 0)
        return found


def append_fields(form: Form) -> dict[str, object]:
    """Fields of the instruction that appends such rows."""
    fields: dict[str, object] = {"columns": form.columns, "groups": form.heads, "key_side": 1}
    return fields | ({} if form.scale is None else {"output_scale": float(form.scale)})
