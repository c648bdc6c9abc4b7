"""Pages of a mapped checkpoint that nothing reads any more.

Transformers maps each weight file, and the model's tensors are views of it. Those of packed weights are gone once they are packed, but
their pages stay in memory as long as one view lives, as the embedding table's does: as many bytes again as the weights have. Given back
they are not lost, since the mapping is the file's. The table's own pages stay mapped, so that all processes that load the file share them.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from torch import nn

Range = tuple[int, int]
"""Addresses of the first byte, and of the one after the last."""


def release_pages(model: nn.Module, files: Sequence[Path]) -> None:
    """Give back the pages of `files` that no tensor of a model lies in, where the model's tensors are views of them.

    Only mappings with a tensor of the model count: others of the same files are somebody else's, who may have written to them.
    """
    kept = sorted(_ranges(model))
    for start, end in _mappings(files):
        inside = [(first, last) for first, last in kept if start <= first < end]
        if inside:
            for first, last in _between(start, end, inside):
                _madvise(first, last - first)


def _ranges(model: nn.Module) -> Iterator[Range]:
    """Where the storages of all tensors of a model lie."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            yield storage.data_ptr(), storage.data_ptr() + storage.nbytes()


def _mappings(files: Sequence[Path]) -> Iterator[Range]:
    """Where in this process files are mapped; nothing where the system does not say."""
    if sys.platform != "linux":
        return
    paths = {os.path.realpath(file) for file in files}
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                addresses, *_, path = line.rstrip("\n").split(maxsplit=5)
                if path in paths:
                    start, end = addresses.split("-")
                    yield int(start, 16), int(end, 16)
    except OSError:
        return


def _between(start: int, end: int, kept: Iterable[Range]) -> Iterator[Range]:
    """Whole pages of a mapping outside of the ranges, which are in order and may overlap."""
    page = mmap.PAGESIZE
    free = start
    for first, last in (*kept, (end, end)):
        edge = first - first % page
        if edge > free:
            yield free, edge
        free = max(free, last + -last % page)


def _madvise(address: int, length: int) -> None:
    ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
