"""Every C++ header of the kernels compiles by itself, with the flags of each instruction set that it is for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kernels import emulation

pytestmark = pytest.mark.slow

_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")
FLAGS = {
    "portable": (),
    "avx2": ("-mavx2", "-mf16c", "-mfma"),
    "avx512_vnni": _AVX512,
    "amx": (*_AVX512, "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
}
"""As in CMakeLists.txt."""
ISAS_OF = {  # by the end of a header's name
    "_avx.h": ("avx2", "avx512_vnni", "amx"),
    "_avx2.h": ("avx2",),
    "_avx512.h": ("avx512_vnni", "amx"),
    "_avx512_vnni.h": ("avx512_vnni",),
    "_amx.h": ("amx",),
}
EVERY = ("portable", "avx2")
"""What a header that is for all instruction sets is compiled with: it sees the vectors of plain C++, and those of SIMD."""
HEADERS = sorted(str(path.relative_to(emulation.CSRC)) for path in emulation.CSRC.rglob("*.h"))


def compile_alone(header: Path, flags: tuple[str, ...]) -> str:
    """What the compiler says of a header that nothing was included before."""
    # from a file of its own: the compiler warns of `#pragma once` in the file that it was given
    command = [str(emulation.compiler()), "-std=c++17", "-fsyntax-only", "-fopenmp", "-Wall", "-Wextra", *flags]
    source = f'#include "{header}"\n'
    done = subprocess.run([*command, "-x", "c++", "-"], input=source, capture_output=True, text=True, timeout=120)
    return done.stderr


def _accepts(flags: tuple[str, ...]) -> bool:
    command = [str(emulation.compiler()), *flags, "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input="", capture_output=True, text=True, timeout=120).returncode == 0


@pytest.fixture(scope="module", params=FLAGS)
def isa(request: pytest.FixtureRequest) -> str:
    if emulation.compiler() is None:
        pytest.skip("there is no C++ compiler")
    if not _accepts(FLAGS[request.param]):
        pytest.skip(f"this compiler does not know {request.param}")
    return str(request.param)


def test_every_header_stands_alone(isa: str) -> None:
    of_isa = [
        header
        for header in HEADERS
        if isa in next((isas for end, isas in ISAS_OF.items() if header.endswith(end)), EVERY)
    ]
    assert of_isa
    said = {header: compile_alone(emulation.CSRC / header, FLAGS[isa]) for header in of_isa}
    assert {header: words for header, words in said.items() if words} == {}


def test_a_header_that_lacks_an_include_is_seen(isa: str, tmp_path: Path) -> None:
    header = tmp_path / "lacking.h"
    header.write_text("#pragma once\ninline int64_t twice(int64_t x) { return 2 * x; }\n")
    assert "int64_t" in compile_alone(header, FLAGS[isa])
