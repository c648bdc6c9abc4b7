"""Programs that one call of the native library runs one after the other."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from .interface import Call
from .native import current_isa, library
from .program import KeysOfCall, Program, check, set_keys

_ROW_FIELDS = slice(0, 2)
_OTHER_FIELDS = slice(4, None)
"""Of `Call`, as numbers of four bytes: all but the pointer `external`, which each program has of its own."""


class ProgramSequence:
    """Programs over the same rows, keys and mask; one thread at a time.

    Attributes:
        addresses: uint64, where the caller writes the addresses of the programs' external values, those of program `i` from `first[i]` on.
    """

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = list(programs)
        counts = [program.external_count for program in programs]
        self.first = [sum(counts[:i]) for i in range(len(counts))]
        pointers = (ctypes.c_void_p * max(sum(counts), 1))()
        self.addresses = np.frombuffer(pointers, np.uint64)
        self._calls = (Call * len(programs))()
        for call, first in zip(self._calls, self.first, strict=True):
            place = ctypes.addressof(pointers) + first * ctypes.sizeof(ctypes.c_void_p)
            call.external = ctypes.cast(place, ctypes.POINTER(ctypes.c_void_p))
        self._kept = pointers
        self._fields = np.frombuffer(self._calls, np.int32).reshape(len(programs), -1)
        self._native: dict[int, ctypes.Array[ctypes.c_void_p]] = {}

    def run(self, batch: int, length: int, kinds: Sequence[KeysOfCall]) -> None:
        """Run all over `batch * length` rows.

        Args:
            kinds: the keys that attention cores read, by kind.

        Raises:
            KernelError: the library refused.
            IndexError: an embedding index is out of range.
        """
        first = self._calls[0]
        first.batch = batch
        first.length = length
        kept = []  # lives until the call is done
        for position, keys in enumerate(kinds):
            first.keys[position].mask = None
            first.keys[position].mask_kind = 0
            kept.append(set_keys(first, position, keys))
        self._fields[1:, _ROW_FIELDS] = self._fields[0, _ROW_FIELDS]
        self._fields[1:, _OTHER_FIELDS] = self._fields[0, _OTHER_FIELDS]
        isa = current_isa()
        native = self._native.get(isa)
        if native is None:
            native = self._native[isa] = (ctypes.c_void_p * len(self._programs))(
                *[program.address(isa) for program in self._programs]
            )
        loaded = library()
        assert loaded is not None
        check(loaded.run_all(isa, native, self._calls, len(self._calls)), self._programs[0])
        del kept
