"""What `pip install` builds, with and without a compiler, and what the kernel library is linked with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

LIBRARY = "optimum_int8/kernels/_liboptimum_int8.so"
ON_X86_LINUX = sys.platform == "linux" and platform.machine() == "x86_64"


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def build_wheel(root: Path, folder: Path, **environment: str) -> Path:
    """The wheel of a copy of the checkout, built by the backend in this interpreter: without isolation, so offline."""
    copy = folder / "checkout"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "build", ".*_cache"))
    code = "import sys; from scikit_build_core.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=copy, env=os.environ | environment, check=True, timeout=280
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_pure_python(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core", reason="scikit-build-core is not installed")
    wheel = build_wheel(root, tmp_path, CXX="/nonexistent", SKBUILD_LOGGING_LEVEL="ERROR")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "optimum_int8/__init__.py" in names
    assert not [name for name in names if name.endswith(".so")], "a pure wheel must not carry the checkout's library"


@pytest.mark.slow
@pytest.mark.skipif(not (ON_X86_LINUX and shutil.which("g++")), reason="needs g++ on x86-64 Linux")
def test_with_a_compiler_the_wheel_has_the_library(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core", reason="scikit-build-core is not installed")
    wheel = build_wheel(root, tmp_path, SKBUILD_CMAKE_BUILD_TYPE="Debug")  # compiles far faster; nothing runs it
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert LIBRARY in names
    assert not [name for name in names if "csrc" in name], "sources belong into the sdist only"


@pytest.fixture
def library(root: Path) -> Path:
    if not (root / LIBRARY).is_file():
        pytest.skip("the kernels are not built; run scripts/build_kernels")
    return root / LIBRARY


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf")
def test_the_library_shares_torchs_openmp(library: Path) -> None:
    """With a libgomp of its own there would be two thread pools, and `torch.set_num_threads` would not reach ours."""
    needed = [line for line in run("readelf", "-d", "-W", str(library)).splitlines() if "(NEEDED)" in line]
    system = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2")
    assert not [line for line in needed if not any(f"[{name}]" in line for name in system)]
    assert "GOMP_parallel" in run("nm", "-D", "--undefined-only", str(library))


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_isa_files_share_no_symbols(root: Path, library: Path) -> None:
    """An inline function compiled with AVX-512 must not be the copy that the linker keeps for every CPU."""
    objects = sorted((root / "build" / "kernels").glob("CMakeFiles/**/*.o"))
    if not objects:
        pytest.skip("the library was not built in this checkout")
    owners: dict[str, set[Path]] = {}
    for file in objects:
        for line in run("nm", "-C", str(file)).splitlines():
            if line[17:18] == "W":  # functions; weak data (V, u) holds no instructions
                owners.setdefault(line[19:], set()).add(file)
    assert len(objects) > 1
    # Two objects may share a symbol only if they are compiled with the same flags: if neither is under isa/.
    shared = {
        name: sorted(file.name for file in files)
        for name, files in owners.items()
        if len(files) > 1 and any(file.parent.name == "isa" for file in files)
    }
    assert shared == {}, "make these static, or put them into a namespace of the ISA"


def test_no_system_is_claimed_that_the_wheel_is_not_for(root: Path) -> None:
    text = (root / "pyproject.toml").read_text()
    assert "Operating System :: POSIX :: Linux" in text
    assert "OS Independent" not in text


def test_the_installation_takes_the_torch_that_is_there(root: Path) -> None:
    """No upper bound and no exact version: either would replace a torch that runs."""
    (line,) = [line for line in (root / "pyproject.toml").read_text().splitlines() if line.startswith('    "torch')]
    assert line.split('"')[1] == "torch>=2.9"
    install = (root / "README.md").read_text().split("## Install")[1].split("##")[0]
    assert "pip install torch --index-url https://download.pytorch.org/whl/cpu" in install
