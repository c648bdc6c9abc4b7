"""The kernels, checked against numerics to the bit and then timed: what `python -m benchmarks kernels` measures."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from optimum_int8 import kernels
from optimum_int8.evaluation.machine import describe_machine
from optimum_int8.operators import REGISTRY, run_as_program

from .differences import difference
from .kernels import Arguments, Kernel

TORCH = "torch float32"


@dataclass
class Timing:
    """A result; `milliseconds` is a median."""

    op: str
    shape: str
    isa: str
    milliseconds: float
    best: float
    repetitions: int
    gops: float | None
    gbps: float | None
    roofline: float | None = None


def check(kernel: Kernel, args: Arguments, isas: list[str]) -> list[str]:
    """What differs from numerics, by instruction set."""
    expected, wrong = REGISTRY[kernel.op].definition(*args), []
    for isa in isas:
        with kernels.use_isa(isa):
            told = difference(run_as_program(kernel.op, *args), expected)
        wrong += [f"{kernel.op} {kernel.shape} on {isa}: {told}"] if told else []
    return wrong


def measure(kernel: Kernel, args: Arguments, isas: list[str], seconds: float) -> list[Timing]:
    """Medians over calls, the instruction sets, and torch where there is the same, taking turns for `seconds` each (at least 3 calls, at
    most 1000)."""
    calls: dict[str, Callable[[], Any]] = dict.fromkeys(isas, lambda: run_as_program(kernel.op, *args))
    if kernel.torch is not None:
        calls[TORCH] = kernel.torch()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    waiting = list(calls)
    for name in calls:  # first calls allocate
        timed(calls[name], name)
    while waiting:
        for name in list(waiting):
            taken[name].append(timed(calls[name], name))
            if len(taken[name]) >= 1000 or (len(taken[name]) >= 3 and sum(taken[name]) > seconds):
                waiting.remove(name)
    return [timing(kernel, name, taken[name]) for name in calls]


def timed(call: Callable[[], Any], name: str) -> float:
    """Seconds of one call, on the instruction set of this name or in torch."""
    with contextlib.nullcontext() if name == TORCH else kernels.use_isa(name):
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


def timing(kernel: Kernel, isa: str, taken: list[float]) -> Timing:
    """The medians and rates of the calls of one instruction set."""
    median = statistics.median(taken)
    gops = kernel.operations / median / 1e9 if kernel.operations else None
    gbps = None if isa == TORCH else kernel.moved / median / 1e9  # floats are more bytes
    return Timing(kernel.op, kernel.shape, isa, median * 1e3, min(taken) * 1e3, len(taken), gops, gbps)


def copy_gbps(megabytes: int = 2) -> float:
    """Bytes that a copy reads and writes per second, in units of 1e9; the size of the kernels' data, so that caches count."""
    source = torch.ones(megabytes << 18)
    target, taken = torch.empty_like(source), []
    for _ in range(50):
        start = time.perf_counter()
        target.copy_(source)
        taken.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(taken) / 1e9


def add_roofline(timings: list[Timing], benchmarked: dict[tuple[str, str], Kernel], bandwidth: float) -> None:
    """Share of what the machine can do: the time at the ceilings, over the time taken."""
    for isa in {t.isa for t in timings} - {TORCH}:
        mine = [(t, benchmarked[t.op, t.shape]) for t in timings if t.isa == isa]
        rate = max(kernel.operations / t.best for t, kernel in mine)
        moved = max([bandwidth * 1e6, *(kernel.moved / t.best for t, kernel in mine)])
        for t, kernel in mine:
            t.roofline = max(kernel.operations / rate if rate else 0.0, kernel.moved / moved) / t.milliseconds


def table(timings: list[Timing], bandwidth: float) -> Table:
    """What is printed."""
    machine = describe_machine()
    caption = f"{machine['cpu']}, {machine['threads']} threads; medians; a copy moves {bandwidth:.1f} GB/s"
    made = Table(title="Kernels, equal to numerics to the bit", caption=caption)
    for heading in ("operator", "shape", "ISA", "ms", "GOP/s", "GB/s", "of roofline"):
        made.add_column(heading, justify="left" if heading in ("operator", "shape", "ISA") else "right", no_wrap=True)
    last = None
    for t in timings:
        if last not in (None, (t.op, t.shape)):
            made.add_section()
        first = last != (t.op, t.shape)
        last = t.op, t.shape
        rate = f"{t.gops:.0f}" if t.gops else ""
        moved = f"{t.gbps:.2f}" if t.gbps else ""
        row = (t.op if first else "", t.shape if first else "", t.isa, f"{t.milliseconds:.3f}", rate, moved)
        made.add_row(*row, f"{t.roofline:.0%}" if t.roofline is not None else "")
    return made


def check_and_time(
    chosen: Sequence[Kernel], isas: list[str], seconds: float | None, threads: int | None = None
) -> dict[str, Any] | None:
    """Check each kernel on each instruction set, time it, and print the table.

    Args:
        seconds: of calls per kernel and instruction set; None only checks.
        threads: None for torch's.

    Returns:
        `machine`, `copy_gbps`, `isas` and `timings`; None where a kernel differs from numerics, which is printed.
    """
    console = Console()
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    timings: list[Timing] = []
    with console.status("") as status:
        for kernel in chosen:
            status.update(f"{kernel.op} {kernel.shape}")
            args = kernel.make()
            if wrong := check(kernel, args, isas):
                print("not equal to numerics, so not timed:", *wrong, sep="\n  ", file=sys.stderr)
                return None
            timings += [] if seconds is None else measure(kernel, args, isas, seconds)
    bandwidth = copy_gbps()
    add_roofline(timings, {(k.op, k.shape): k for k in chosen}, bandwidth)
    checked = f"{len(chosen)} kernels equal numerics on {', '.join(isas)}"
    console.print(checked if seconds is None else table(timings, bandwidth))
    return {
        "machine": describe_machine(),
        "copy_gbps": bandwidth,
        "isas": isas,
        "timings": [asdict(t) for t in timings],
    }
