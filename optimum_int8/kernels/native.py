"""Finds the native library and the instruction set it may use."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch  # loads libgomp with global visibility, which the library binds to

from ..errors import ConfigError, KernelError
from .interface import ABI as _ABI
from .interface import ISAS, Fact
from .interface_facts import differences

ISA_VARIABLE = "OPTIMUM_INT8_ISA"

_NAME = "_liboptimum_int8.so"
_override = threading.local()


class Library:
    """The loaded library and the instruction sets that this machine can run with it.

    Raises:
        OSError: the file cannot be loaded.
        KernelError: its interface is not the one that this package was written for.
    """

    def __init__(self, path: Path) -> None:
        self.native = ctypes.CDLL(str(path))
        if self.native.oi8_abi() != _ABI:
            raise KernelError(
                f"{path} has interface version {self.native.oi8_abi()}, this package needs {_ABI}: "
                "rebuild (scripts/build_kernels) or reinstall"
            )
        if different := differences(_reported(self.native)):
            raise KernelError(
                f"{path} was not built from this package's sources ({'; '.join(different[:3])}"
                f"{'; ...' if different[3:] else ''}): rebuild (scripts/build_kernels) or reinstall"
            )
        self.run = self.native.oi8_run
        self.run.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self.run_all = self.native.oi8_run_all
        self.run_all.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        self.prepare_weight = self.native.oi8_prepare_weight
        self.prepare_weight.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p)
        self.prepare_weight.restype = ctypes.c_int64
        self.changed = self.native.oi8_changed
        self.changed.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
        self.release_memory = self.native.oi8_release_memory
        self.release_memory.restype = ctypes.c_int64
        self.available = tuple(name for i, name in enumerate(ISAS) if self.native.oi8_isa_available(i))


def _reported(native: ctypes.CDLL) -> dict[str, int]:
    """What the library says about its enumerators and structs."""
    report = native.oi8_interface
    report.argtypes = (ctypes.POINTER(ctypes.c_int32),)
    report.restype = ctypes.POINTER(Fact)
    count = ctypes.c_int32()
    facts = report(ctypes.byref(count))
    return {facts[i].name.decode(): facts[i].value for i in range(count.value)}


@functools.cache
def _load() -> tuple[Library | None, str | None]:
    """The library, or why there is none."""
    assert torch.__version__  # imported for its libgomp
    path = Path(__file__).with_name(_NAME)
    if not path.exists():
        reason = f"{_NAME} was not built (no C++ compiler at installation, or not x86-64 Linux)"
    else:
        try:
            return Library(path), None
        except (OSError, KernelError) as error:
            reason = str(error)
    warnings.warn(
        f"optimum_int8 runs without its native kernels, correct but slow: {reason}", RuntimeWarning, stacklevel=2
    )
    return None, reason


def library() -> Library | None:
    """The native library, or None where everything runs on `numerics` (said once, as a warning)."""
    return _load()[0]


@functools.cache
def _default_isa(wanted: str | None) -> int:
    loaded = library()
    available = loaded.available if loaded else ()
    if wanted is not None and wanted not in ISAS:
        raise ConfigError(f"{ISA_VARIABLE}={wanted!r} is not known; expected one of {', '.join(ISAS)}")
    if not available:
        return -1
    limit = len(ISAS) - 1 if wanted is None else ISAS.index(wanted)
    return max(ISAS.index(name) for name in available if ISAS.index(name) <= limit)


def current_isa() -> int:
    """Number of the instruction set in use, -1 without the library.

    The best that this machine has, lowered by the environment variable `OPTIMUM_INT8_ISA` (it never raises).

    Raises:
        ConfigError: the variable holds an unknown name.
    """
    chosen = getattr(_override, "isa", None)
    return _default_isa(os.environ.get(ISA_VARIABLE)) if chosen is None else chosen


@contextlib.contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Within the block, this thread's calls use instruction set `name`; for tests and benchmarks.

    Raises:
        ConfigError: this machine or build does not have it.
    """
    loaded = library()
    if loaded is None or name not in loaded.available:
        raise ConfigError(
            f"instruction set {name!r} is not available here; found {', '.join(loaded.available) if loaded else 'none'}"
        )
    previous = getattr(_override, "isa", None)
    _override.isa = ISAS.index(name)
    try:
        yield
    finally:
        _override.isa = previous


def info() -> dict[str, object]:
    """`isa_found` (what can run here), `isa_used`, `library` (is it loaded), `reason` (why not)."""
    loaded, reason = _load()
    isa = current_isa()
    return {
        "isa_found": list(loaded.available) if loaded else [],
        "isa_used": ISAS[isa] if isa >= 0 else "torch",
        "library": loaded is not None,
        "reason": reason,
    }
