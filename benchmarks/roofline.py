"""How far the limit is: the fastest that this machine could compute and read what a model needs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from .images import ImageWork
from .models import Work
from .shapes import Shape

SOURCE = Path(__file__).with_name("ceilings.cpp")


def measure_ceilings(isa: str, threads: int, weight_bytes: int, cache: Path) -> dict[str, Any]:
    """INT8 operations per second from registers, and the speed of reading the weights over and over, measured on the spot.

    Returns:
        `int8_ops` and `read_bytes` per second, or `reason` where they cannot be measured.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None or isa not in ("amx", "avx512_vnni", "avx2"):
        return {"reason": "no C++ compiler" if compiler is None else f"no ceiling is known for instruction set {isa}"}
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = cache / f"ceilings-{digest}"
    try:
        if not program.exists():
            cache.mkdir(parents=True, exist_ok=True)
            partial = program.with_suffix(f".{os.getpid()}")
            subprocess.run(
                [compiler, "-O2", "-std=c++17", "-fopenmp", str(SOURCE), "-o", str(partial)],
                check=True, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            partial.rename(program)
        answer = subprocess.run(
            [str(program), isa, str(threads), str(weight_bytes)],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return {"reason": " ".join(str(getattr(error, "stderr", None) or error).split())[:300]}
    return {
        "int8_ops": found["int8_ops"],
        "read_bytes": found["read_bytes"][str(weight_bytes)],
        "isa": isa,
        "threads": threads,
    }


def measure_bandwidth(isa: str, threads: int, working_set: int, cache: Path) -> float:
    """Bytes per second that are read from a working set over and over: by native code, or by torch where that cannot be compiled."""
    found = measure_ceilings(isa, threads, working_set, cache)
    return float(found["read_bytes"]) if "read_bytes" in found else read_with_torch(threads, working_set)


def read_with_torch(threads: int, working_set: int, repetitions: int = 7) -> float:
    """Bytes per second of summing float32 numbers; the best of several."""
    before = torch.get_num_threads()
    numbers = torch.ones(max(working_set // 4, 1))
    best = math.inf
    try:
        torch.set_num_threads(threads)
        for _ in range(repetitions):
            start = time.perf_counter()
            numbers.sum()
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return numbers.numel() * 4 / best


def floor(work: Work | ImageWork, shape: Shape, ceilings: dict[str, Any]) -> dict[str, Any] | None:
    """The least milliseconds of a call, and what they go to. Computing and reading may overlap, so the longer one counts."""
    if "reason" in ceilings:
        return None
    compute = work.operations(shape) / ceilings["int8_ops"] * 1e3
    memory = work.weight_bytes / ceilings["read_bytes"] * 1e3
    return {"floor_ms": max(compute, memory), "compute_ms": compute, "memory_ms": memory}
