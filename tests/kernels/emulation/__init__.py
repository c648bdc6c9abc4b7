"""The kernel library with AVX-512 and AMX in plain C++ (see immintrin.h), for machines that do not have them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "optimum_int8" / "kernels" / "csrc"
EMULATED = ("avx512_vnni", "amx")
_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-fopenmp", "-ffp-contract=off", "-fno-math-errno", "-DNDEBUG")
_FLAGS_OF = {"portable": (), "avx2": ("-mavx2", "-mf16c", "-mfma")} | dict.fromkeys(
    EMULATED, (f"-I{HERE}", "-mavx2", "-mf16c", "-mfma", "-Wno-psabi")
)


def compiler() -> str | None:
    """The C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def build(target: Path) -> None:
    """Compile into `target`. Raises CalledProcessError, with the compiler's words in `stderr`."""
    built = [f"-DOPTIMUM_INT8_BUILT_{isa.upper()}=1" for isa in _FLAGS_OF]
    sources = [(path, ()) for path in sorted(CSRC.glob("*.cpp")) if path.name != "cpu.cpp"]
    sources += [(HERE / "cpu.cpp", ())] + [(CSRC / "isa" / f"{isa}.cpp", flags) for isa, flags in _FLAGS_OF.items()]
    objects, running = [], []
    for path, flags in sources:
        objects.append(str(target.with_name(f"{path.parent.name}-{path.stem}.o")))
        command = [compiler(), *_FLAGS, *flags, *built, f"-I{CSRC}", "-c", str(path), "-o", objects[-1]]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args, stderr=errors)
    # without -fopenmp: its symbols bind to the libgomp of torch, as in the real library
    subprocess.run([compiler(), "-shared", *objects, "-o", str(target)], check=True, capture_output=True, text=True)
