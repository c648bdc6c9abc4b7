"""Runs the instructions of one operator at once, on torch tensors."""

from __future__ import annotations

import math
from typing import Any, overload

import torch
from torch import Tensor

from .emission import KeptRows, Rows, row_bytes
from .packing import STEP
from .program import Program

_ROW_SLACK = 64  # the kernels read tiles that reach this far past the last row


def empty_rows(lead: torch.Size | tuple[int, ...], columns: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised `[*lead, columns]`; uint8 rows are aligned and padded as the kernels want them."""
    if dtype != torch.uint8:
        return torch.empty(*lead, columns, dtype=dtype)
    rows = math.prod(lead)
    stride = row_bytes(columns, dtype)
    storage = torch.empty((rows + _ROW_SLACK) * stride, dtype=torch.uint8)
    return storage[: rows * stride].view(*lead, stride)[..., :columns]


def as_rows(x: Tensor) -> Tensor:
    """`x` laid out for the kernels: contiguous, or for uint8 as `empty_rows` does; a copy only where it is not."""
    if x.dtype != torch.uint8:
        return x.contiguous()
    stride = (x.shape[-1] + STEP - 1) // STEP * STEP
    roomy = x.untyped_storage().nbytes() - x.storage_offset() >= (math.prod(x.shape[:-1]) + _ROW_SLACK) * stride
    expected = [stride * math.prod(x.shape[i + 1 : -1]) for i in range(x.dim() - 1)]
    if roomy and x.stride(-1) == 1 and list(x.stride()[:-1]) == expected:
        return x
    copy = empty_rows(x.shape[:-1], x.shape[-1], torch.uint8)
    copy.copy_(x)
    return copy


class Immediate:
    """An `Emission` whose values are all tensors; `run` executes it and turns `Rows` into tensors."""

    def __init__(self, lead: torch.Size | tuple[int, ...]) -> None:
        self.program = Program()
        self.keys = 1
        self.lead = lead
        self.tensors: list[Tensor] = []
        self._by_value: dict[int, Tensor] = {}
        self.is_periodic = False

    def _external(self, tensor: Tensor, columns: int) -> Rows:
        self.tensors.append(tensor)
        rows = Rows(self.program.external(row_bytes(columns, tensor.dtype)), columns, tensor.dtype)
        self._by_value[rows.value] = tensor
        return rows

    def keep(self, rows: Rows, heads: int, scale: Tensor | None) -> KeptRows | None:
        """None: there is no cache."""
        return None

    def is_outside(self, rows: Rows) -> bool:
        """Nothing is."""
        return False

    def new(self, columns: int, dtype: torch.dtype, after: Rows | None = None) -> Rows:
        """A value for the next result, see `Emission`."""
        lead = self.lead if after is None else (self.lead[0], self._by_value[after.value].shape[1] + self.lead[1])
        return self._external(empty_rows(lead, columns, dtype), columns)

    @overload
    def input(self, x: Tensor) -> Rows: ...

    @overload
    def input(self, x: None) -> None: ...

    def input(self, x: Tensor | None) -> Rows | None:
        """A tensor with one row per token; its last axis is the row."""
        return None if x is None else self._external(as_rows(x), x.shape[-1])

    def scalars(self, x: Tensor) -> Tensor | Rows:
        """A scale or zero point: a constant when it is a scalar, else one number per row."""
        return x if x.dim() == 0 else self._external(x.contiguous(), 1)

    def value(self, x: Any) -> Any:
        """An argument that is a value of the program: tensors by their shape, also in lists; None and constants stay."""
        if isinstance(x, (list, tuple)):
            return [self.value(item) for item in x]
        if x is None or (x.dim() == 0 and len(self.lead) > 0):
            return x
        if not x.is_floating_point() and x.dtype == torch.int64:
            return self._ids(x)
        return self.scalars(x) if x.dim() == len(self.lead) else self.input(x)

    def _ids(self, x: Tensor) -> Rows:
        """Ids, which may be shared by all entries of the batch: then every sequence reads them again."""
        repeats = x.shape != self.lead
        self.is_periodic = self.is_periodic or repeats
        self.tensors.append(x.contiguous())
        return Rows(self.program.external(x.itemsize, periodic=repeats), 1, x.dtype)

    def run(
        self,
        results: Any,
        batch: int = 1,
        length: int | None = None,
        mask: Tensor | None = None,
        key_length: int | None = None,
    ) -> Any:
        """Execute; returns `results` (`Rows` or a tuple of them) as tensors. A single column (scales, zero points) loses its last axis."""
        self.program.run(batch, math.prod(self.lead) if length is None else length, self.tensors, mask, key_length)
        if isinstance(results, Rows):
            return self._by_value[results.value]
        return tuple(self._by_value[r.value] for r in results)


class ImmediateImages(Immediate):
    """An `Immediate` on images `[batch, height, width, channels]`; the operator before `new` sets `size`, that of its results."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__(shape[:-1])
        self.program = Program(spatial=True)
        self.size: tuple[int, int] = (shape[1], shape[2])

    def _image(self, tensor: Tensor, size: tuple[int, int]) -> Rows:
        self.tensors.append(tensor)
        columns = tensor.shape[-1]
        dtype = tensor.dtype
        value = self.program.external(row_bytes(columns, dtype), rows=size[0] * size[1])
        rows = Rows(value, columns, dtype, size=size)
        self._by_value[value] = tensor
        return rows

    def new(self, columns: int, dtype: torch.dtype, after: Rows | None = None) -> Rows:
        """A value of `size` for the next result; images are never `after` others."""
        return self._image(empty_rows((self.lead[0], *self.size), columns, dtype), self.size)

    def image(self, x: Tensor) -> Rows:
        """An image to read."""
        return self._image(as_rows(x), (x.shape[1], x.shape[2]))

    def scalars(self, x: Tensor) -> Tensor | Rows:
        """A scale or zero point: a constant, or a number per entry of the batch."""
        return x if x.dim() == 0 else self._image(x.contiguous().view(-1, 1, 1, 1), (1, 1))

    def value(self, x: Any) -> Any:
        """An argument that is a value of the program; None and constants stay."""
        if x is None or x.dim() == 0:
            return x
        return self.image(x) if x.dim() == len(self.lead) + 1 else self.scalars(x)

    def run_images(self, results: Any) -> Any:
        """Execute; returns `results` (`Rows` or a tuple of them) as tensors."""
        return self.run(results, self.lead[0], 1)
