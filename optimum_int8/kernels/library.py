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

from ..errors import ConfigError

ISA_VARIABLE = "OPTIMUM_INT8_ISA"
ISAS = ("portable", "avx2", "avx512_vnni", "amx")
"""Instruction sets in rising order, numbered as `enum oi8_isa`."""

_ABI = 8
_NAME = "_liboptimum_int8.so"
_override = threading.local()


class Library:
    """The loaded library and the instruction sets that this machine can run with it."""

    def __init__(self, path: Path) -> None:
        self.native = ctypes.CDLL(str(path))
        if self.native.oi8_abi() != _ABI:
            raise OSError(
                f"{path} has interface version {self.native.oi8_abi()}, this package needs {_ABI}: rebuild or reinstall"
            )
        self.run = self.native.oi8_run
        self.run.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self.prepare_weight = self.native.oi8_prepare_weight
        self.prepare_weight.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p)
        self.prepare_weight.restype = ctypes.c_int64
        if not hasattr(self.native, "oi8_changed"):
            raise OSError(f"{path} is older than this package: rebuild or reinstall")
        self.changed = self.native.oi8_changed
        self.changed.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
        self.available = tuple(name for i, name in enumerate(ISAS) if self.native.oi8_isa_available(i))


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
        except OSError as error:
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
