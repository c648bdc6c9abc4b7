"""Which instruction set is used, and what happens without the library."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from benchmarks.differences import difference
from optimum_int8 import kernels, operators
from optimum_int8.errors import ConfigError, KernelError
from optimum_int8.kernels import interface, interface_facts
from optimum_int8.operators import REGISTRY
from tests.kernels.conftest import library
from tests.operators.cases import CASES, linear_arguments

ISAS = kernels.info()["isa_found"]
needs_library = pytest.mark.skipif(not ISAS, reason="no native library")


@needs_library
def test_the_variable_lowers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [isa for isa in kernels.ISAS if isa in ISAS] == ISAS and ISAS[0] == "portable"
    monkeypatch.delenv(kernels.ISA_VARIABLE, raising=False)
    assert kernels.info()["isa_used"] == ISAS[-1]
    for isa in ISAS:
        monkeypatch.setenv(kernels.ISA_VARIABLE, isa)
        assert kernels.info() == {"isa_found": ISAS, "isa_used": isa, "library": True, "reason": None}


def test_the_variable_never_raises(monkeypatch: pytest.MonkeyPatch, forget_library: Path) -> None:
    class Old:
        available = ("portable", "avx2")

    monkeypatch.setattr(library, "_load", lambda: (Old, None))
    for wanted, used in (("amx", "avx2"), ("avx512_vnni", "avx2"), ("avx2", "avx2"), ("portable", "portable")):
        monkeypatch.setenv(kernels.ISA_VARIABLE, wanted)
        assert kernels.info()["isa_used"] == used


@pytest.mark.parametrize("name", ["sse2", "AVX2", ""])
def test_unknown_instruction_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(kernels.ISA_VARIABLE, name)
    with pytest.raises(ConfigError, match=f"OPTIMUM_INT8_ISA={name!r} is not known; expected one of portable, avx2"):
        kernels.info()
    x = torch.ones(2, 2)
    if ISAS:
        with pytest.raises(ConfigError):
            operators.quantize_rows(x)


@pytest.mark.slow
@needs_library
def test_in_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import os
from optimum_int8 import errors, kernels
print(kernels.info()["isa_used"])
os.environ[kernels.ISA_VARIABLE] = "no-such-set"
try: kernels.info()
except errors.ConfigError as error: print(error)
"""
    monkeypatch.setenv(kernels.ISA_VARIABLE, ISAS[0])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250, check=True)
    used, refusal = done.stdout.splitlines()
    assert used == ISAS[0] and "'no-such-set' is not known" in refusal


@needs_library
def test_use_isa_holds_in_its_block_and_thread() -> None:
    before, seen = kernels.current_isa(), []
    with kernels.use_isa("portable"):
        assert kernels.info()["isa_used"] == "portable"
        other = threading.Thread(target=lambda: seen.append(kernels.current_isa()))
        other.start()
        other.join()
        with kernels.use_isa(ISAS[-1]):
            assert kernels.info()["isa_used"] == ISAS[-1]
        assert kernels.info()["isa_used"] == "portable"
    assert kernels.current_isa() == before and seen == [before]
    with pytest.raises(ConfigError, match="'sse2' is not available here; found portable"), kernels.use_isa("sse2"):
        pass


def test_without_the_library_numerics_runs_and_says_so_once(forget_library: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for case in [c for c in CASES if c.name in ("17", "static-no_bias", "3x17", "padding", "static-padding")]:
            found = getattr(torch.ops.optimum_int8, case.op)(*case.make())
            assert difference(found, REGISTRY[case.op].definition(*case.make())) is None or "norm" in case.op, case
    assert [w.category for w in told] == [RuntimeWarning]
    assert "without its native kernels, correct but slow" in str(told[0].message)
    info = kernels.info()
    assert (info["library"], info["isa_found"], info["isa_used"]) == (False, [], "torch")
    assert "was not built" in str(info["reason"])
    with pytest.raises(KernelError, match="needs the native library"):
        kernels.Program().run(1, 1, [])


def test_a_broken_library_is_no_library(forget_library: Path) -> None:
    (forget_library / "_liboptimum_int8.so").write_bytes(b"not a library")
    args = linear_arguments(3, 5, 7, dynamic=True)
    with pytest.warns(RuntimeWarning, match="without its native kernels"):
        found = operators.linear(*args)
    assert difference(found, REGISTRY["linear"].definition(*args)) is None
    assert "_liboptimum_int8.so" in str(kernels.info()["reason"])


@needs_library
def test_a_library_of_another_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_load", library.functools.cache(library._load.__wrapped__))
    monkeypatch.setattr(library, "_ABI", 999)
    with pytest.warns(RuntimeWarning, match=r"has interface version \d+, this package needs 999: rebuild "):
        assert library.library() is None


@needs_library
def test_a_library_with_another_struct_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interface version is the same: somebody changed one side and did not rebuild."""

    class Norm(interface.Norm):
        _fields_ = [("added", ctypes.c_int32)]

    monkeypatch.setitem(interface_facts._STRUCTS, "oi8_norm", Norm)
    path = Path(library.__file__).with_name(library._NAME)
    with pytest.raises(KernelError, match=r"sizeof oi8_norm is \d+, expected \d+.*rebuild"):
        library.Library(path)
    monkeypatch.setattr(library, "_load", library.functools.cache(library._load.__wrapped__))
    with pytest.warns(RuntimeWarning, match="sizeof oi8_norm"):
        assert library.library() is None


@needs_library
@pytest.mark.parametrize("change", ["order", "missing", "renamed", "place"])
def test_what_the_library_reports_is_compared(change: str) -> None:
    found = library._reported(library.library().native)
    assert interface_facts.differences(found) == [] and found["OI8_LINEAR"] == 1 and len(found) > 150
    if change == "order":
        found["OI8_LINEAR"], found["OI8_NORM"] = found["OI8_NORM"], found["OI8_LINEAR"]
        expected = ["OI8_LINEAR is 2, expected 1", "OI8_NORM is 1, expected 2"]
    elif change == "missing":
        del found["oi8_conv.slope"]
        expected = ["oi8_conv.slope is missing, expected 72"]
    elif change == "renamed":
        found["OI8_SWISH"] = 9
        expected = ["OI8_SWISH is 9, expected nothing of this name"]
    else:
        found["oi8_call.keys"] = 8
        expected = ["oi8_call.keys is 8, expected 16"]
    assert interface_facts.differences(found) == expected
