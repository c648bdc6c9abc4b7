"""What operators append their instructions to: values of a program, and where the results of the next instruction go.

A tensor is either `Rows`, a value of the program with one row per token, or a constant (a weight, quantization parameters) whose numbers
or pointer go into the instruction.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .packing import STEP
from .program import Program


class Rows(NamedTuple):
    """A value of a program: `columns` entries of `dtype` per row, from entry `column` of the value's rows on."""

    value: int
    columns: int
    dtype: torch.dtype
    column: int = 0
    size: tuple[int, int] = (0, 0)  # height and width, of an image


class KeptRows(NamedTuple):
    """INT8 keys, or values, that a cache keeps: uint8 rows and, where each row and head has its own, their scales; and how they are quantized.

    Attributes:
        given: the input of the program that they stand for; None of those that the program appends to.
    """

    codes: Rows
    scales: Rows | None
    heads: int
    scale: Tensor | None
    given: int | None = None


class Emission(Protocol):
    """Where instructions go, and where the results of the next one go.

    Attributes:
        keys: which kind of keys the next attention core reads, counted from 1; those of one kind have one length and one mask.
    """

    program: Program
    keys: int

    def keep(self, rows: Rows, heads: int, scale: Tensor | None) -> KeptRows | None:
        """INT8 keys, or values, that the caller's cache keeps: those that `rows` are appended to, or those that `rows` are, where they come
        from outside. None where the program reads float ones.
        """

    def is_outside(self, rows: Rows) -> bool:
        """Whether keys, or values, may be kept in INT8 by the caller: they are neither computed nor appended to."""

    def new(self, columns: int, dtype: torch.dtype, after: Rows | None = None) -> Rows:
        """A value for the next result; one with the rows of another before those of the tokens, where it is `after` one."""


class ImageEmission(Emission, Protocol):
    """An `Emission` that knows how large its next result is."""

    size: tuple[int, int]


def row_bytes(columns: int, dtype: torch.dtype) -> int:
    """Distance between rows; uint8 rows are padded to whole steps of the kernels."""
    return (columns + STEP - 1) // STEP * STEP if dtype == torch.uint8 else columns * dtype.itemsize


def output_fields(scale: Tensor, zero_point: Tensor) -> dict[str, Any]:
    """Fields of an instruction that quantizes its result: one scale, or one for each column."""
    fields: dict[str, Any] = {"output_zero_point": int(zero_point)}
    return fields | ({"output_scales": scale} if scale.dim() else {"output_scale": float(scale)})


def append_fields(heads: int, columns: int, scale: Tensor | None) -> dict[str, Any]:
    """Fields of an instruction that appends INT8 keys or values: one scale, or one of each row and head."""
    fields: dict[str, Any] = {"columns": columns, "groups": heads}
    return fields | ({} if scale is None else {"output_scale": float(scale)})
