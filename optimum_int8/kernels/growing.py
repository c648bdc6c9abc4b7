"""Rows that grow at their end in place: the keys and values of a cache, to which each step of a decoder appends a row.

The tensors that a cache holds are views of a buffer with room behind them. A view may grow in place when its rows are the last that were
appended; a second continuation of the same rows (another cache, one that was cropped) finds others there and begins a buffer of its own.
So what a tensor holds never changes. How far a buffer is filled stands in front of its rows, so that it is copied along with them.
"""

from __future__ import annotations

import ctypes
import secrets
import threading

import torch
from torch import Tensor

_HEADER_FLOATS = 16
"""In front of the first row: the `_Header`, and what aligns rows as torch aligns its memory."""

_LEAST_ROOM = 32
"""Rows that a new buffer has room for at least; it has room for half of its rows otherwise."""

_mark = secrets.randbits(63)
_mark_again = ~_mark & (2**64 - 1)
_lock = threading.Lock()


class _Header(ctypes.Structure):
    """What stands in front of the rows: whether it is a buffer of this process, and the bytes up to the end of its last row."""

    _fields_ = [("mark", ctypes.c_uint64), ("mark_again", ctypes.c_uint64), ("end", ctypes.c_int64)]


def grown(rows: Tensor, more: int) -> Tensor:
    """float32 `[batch, length + more, columns]`, for contiguous `[batch, length, columns]`.

    It begins where `rows` begin, and then holds them, or it is new memory, into which they are to be copied. The rest is not initialised.
    """
    batch, length, columns = rows.shape
    if batch != 1 or rows.dtype != torch.float32:
        return rows.new_empty((batch, length + more, columns), dtype=torch.float32)
    if _claim(rows, more):
        return rows.as_strided((1, length + more, columns), (rows.stride(0), columns, 1))
    wanted = length + more
    buffer = torch.empty(_HEADER_FLOATS + (wanted + max(_LEAST_ROOM, wanted // 2)) * columns)
    end = _HEADER_FLOATS + wanted * columns
    header = _Header.from_address(buffer.data_ptr())
    header.mark = _mark
    header.mark_again = _mark_again
    header.end = end * 4
    return buffer[_HEADER_FLOATS:end].view(1, wanted, columns)


def grown_heads(heads: Tensor, more: int) -> tuple[Tensor, Tensor]:
    """The same for heads `[batch, heads, length, head]` that are a view of such rows: those, of which the rows are a copy where they are no
    view, and `[batch, heads, length + more, head]`."""
    batch, count, length, head = heads.shape
    columns = count * head
    lies = heads.stride()
    if batch == 1 and lies[3] == 1 and lies[1] == head and lies[2] == columns and heads.dtype == torch.float32:
        if _claim(heads, more):
            return heads, heads.as_strided((1, count, length + more, head), lies)
    else:
        heads = heads.transpose(1, 2).contiguous().transpose(1, 2)
    longer = grown(heads.transpose(1, 2).flatten(2), more)
    return heads, longer.unflatten(2, (count, head)).transpose(1, 2)


def _claim(rows: Tensor, more: int) -> bool:
    """Whether `rows` (or heads that are a view of them) are the last of a buffer with room for more; then these are taken."""
    offset = rows.storage_offset()
    if offset < _HEADER_FLOATS:
        return False
    storage = rows.untyped_storage()
    header = _Header.from_address(storage.data_ptr())
    if header.mark != _mark or header.mark_again != _mark_again:
        return False
    numbers = rows.numel()
    end = (offset + numbers) * 4
    grown_end = end + numbers // rows.shape[-2 if rows.dim() == 4 else 1] * more * 4
    with _lock:
        if header.end != end or grown_end > storage.nbytes():
            return False
        header.end = grown_end
    return True
