"""The number of threads and who calls at the same time change nothing; torch's thread pool is the only one."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from benchmarks.differences import difference
from optimum_int8 import kernels
from optimum_int8.operators import REGISTRY
from tests.operators.cases import CASES, Case

ISAS = kernels.info()["isa_found"]
pytestmark = pytest.mark.skipif(not ISAS, reason="no native library")
WORK = [
    c for c in CASES if c.name in ("97", "64", "static-(63, 33, 17)", "dynamic-(31, 97, 97)", "dynamic-padding", "3x17")
]
WORK += [
    c
    for c in CASES
    if c.op in ("lstm", "gru") and c.name in ("(1, 2, 1, 300)", "(2, 2, 1, 420)", "packed-many-2", "(2, 2, 3, 260)")
]
WORK += [c for c in CASES if c.op == "attention" and c.name.endswith("32)")]
WORK += [
    c
    for c in CASES
    if c.op.startswith("conv") and c.name.startswith(("3x3-heavy-added", "3x3-wide-added", "depthwise-wide-added"))
]


def run(case: Case, args: Any = None) -> Any:
    return getattr(torch.ops.optimum_int8, case.op)(*(case.make() if args is None else args))


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
def test_any_number_of_threads(isa: str) -> None:
    before, results = torch.get_num_threads(), {}
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with kernels.use_isa(isa):
                results[threads] = [run(case) for case in WORK]
    finally:
        torch.set_num_threads(before)
    for threads in (2, 3):
        for case, one, many in zip(WORK, results[1], results[threads], strict=True):
            assert difference(many, one) is None, case


def test_several_callers_at_once() -> None:
    """Each calling thread has an arena, a team of threads and an instruction set of its own."""
    args = {str(case): case.make() for case in WORK}  # made here: torch's generator is shared by all threads
    expected = {str(case): REGISTRY[case.op].definition(*args[str(case)]) for case in WORK}

    def caller(number: int) -> list[str]:
        wrong = []
        with kernels.use_isa(ISAS[number % len(ISAS)]):
            for i in range(3 * len(WORK)):
                case = WORK[(i * (number + 1)) % len(WORK)]
                told = difference(run(case, args[str(case)]), expected[str(case)])
                wrong += [f"{ISAS[number % len(ISAS)]} {case}: {told}"] if told else []
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert [told for wrong in pool.map(caller, range(4)) for told in wrong] == []


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_one_thread_pool() -> None:
    """The kernels run on the threads that torch already has, as many as `torch.set_num_threads` says."""
    program = """
import os, torch
from optimum_int8 import operators
def threads(): return len(os.listdir("/proc/self/task"))
x = torch.randn(256, 1024)
torch.set_num_threads(1); alone = threads(); operators.quantize_rows(x); assert threads() == alone, "a pool of its own"
torch.set_num_threads(3); x.exp(); team = threads(); assert team >= alone + 2
operators.quantize_rows(x); assert threads() == team, "a second pool"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
