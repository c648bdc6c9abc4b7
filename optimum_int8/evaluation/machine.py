"""What a number was measured on: processor, instruction set, threads, versions, commit."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers

from .._version import __version__

PACKAGE_ROOT = Path(__file__).resolve().parents[1]


def describe_machine() -> dict[str, Any]:
    """The machine as JSON types; goes into every report so that no number stands without its maker.

    Keys: `cpu`, `cores` (those this process may use), `platform`, `isa_found`, `isa_used`, `threads`, `python`,
    `torch`, `transformers`, `optimum_int8`, `commit` (None outside a checkout; it ends in `-dirty` when files differ).
    """
    kernels = kernel_info()
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "platform": f"{platform.system()} {platform.machine()}",
        "isa_found": kernels["isa_found"],
        "isa_used": kernels["isa_used"],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "optimum_int8": __version__,
        "commit": running_commit(),
    }


def kernel_info() -> dict[str, Any]:
    """`kernels.info()`: `isa_found`, `isa_used`, `library` (is the native library there) and `reason` (why not)."""
    from .. import kernels

    return kernels.info()


def cpu_name() -> str:
    """The processor's brand string; on systems that hide it, what Python knows."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Logical processors that this process may run on (containers and `taskset` narrow them)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_version(name: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def running_commit() -> str | None:
    """`git_commit` when it was first asked for: a run that writes its results into the checkout does not call itself changed."""
    return git_commit()


def git_commit(root: Path = PACKAGE_ROOT.parent) -> str | None:
    """Commit of the checkout whose top folder is `root`, or None.

    Only the top folder counts: a package in a virtual environment that lies inside another project's checkout must not
    report that project's commit.
    """
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
