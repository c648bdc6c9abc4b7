"""Memory in large pages, for weights: a call reads them once, from memory, and with pages of 4 kB the processor looks up more addresses than
it can prefetch.

Weights lie one behind the other in mapped regions, for which the kernel is asked for pages of 2 MB (`MADV_HUGEPAGE`). A region goes back to
the system with the last tensor in it; what a tensor alone took goes back when it ends.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import threading
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from ..torch_private import is_watched

_LARGE = 1 << 21
_SMALL = 1 << 12
_REGION = 1 << 25
"""Bytes of a large page, of one as it is, and of a region: only what was written to takes memory."""

_LEAST = 1 << 16
"""Bytes of a tensor for which it pays."""

_LINE = 64


class _Region:
    """A mapped region, filled from its beginning."""

    def __init__(self, size: int) -> None:
        self.memory = mmap.mmap(-1, size + _LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without: the same memory in pages of 4 kB
            self.memory.madvise(mmap.MADV_HUGEPAGE)
        begin = torch.frombuffer(self.memory, dtype=torch.uint8, count=1).data_ptr()
        self._end = size + _LARGE
        self._filled = -begin % _LARGE

    def take(self, size: int) -> memoryview | None:
        """The next bytes; None where there are not as many."""
        begin = self._filled
        if begin + size > self._end:
            return None
        self._filled = begin + (size + _LINE - 1) // _LINE * _LINE
        view = memoryview(self.memory)[begin : begin + size]
        weakref.finalize(view, _give_back, self.memory, begin, begin + size).atexit = False
        return view


def _give_back(memory: mmap.mmap, begin: int, end: int) -> None:
    """Whole pages of an ended tensor."""
    begin = (begin + _SMALL - 1) // _SMALL * _SMALL
    end = end // _SMALL * _SMALL
    if end > begin:
        memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)


class _Regions:
    """The region that is being filled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._region: _Region | None = None

    def take(self, size: int) -> memoryview:
        """So many bytes."""
        if size > _REGION // 2:
            view = _Region(size).take(size)
            assert view is not None
            return view
        with self._lock:
            view = None if self._region is None else self._region.take(size)
            if view is None:
                self._region = _Region(_REGION)
                view = self._region.take(size)
        assert view is not None
        return view


_regions = _Regions()


def empty_weight(shape: Sequence[int], dtype: torch.dtype = torch.int8) -> Tensor:
    """An uninitialised tensor on the CPU, in large pages where the system has them; small ones lie where torch puts them."""
    count = math.prod(shape)
    size = count * dtype.itemsize
    if size < _LEAST or not hasattr(mmap, "MADV_HUGEPAGE") or is_watched():  # fake tensors have no memory
        return torch.empty(*shape, dtype=dtype, device="cpu")
    memory = torch.frombuffer(_regions.take(size), dtype=dtype, count=count)
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    empty = torch.empty(0, dtype=dtype, device="cpu")
    return empty.set_(memory.untyped_storage(), 0, shape, strides)  # no view of another tensor
