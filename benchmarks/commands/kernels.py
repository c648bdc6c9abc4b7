"""The kernels: each checked against numerics to the bit, then timed, instruction sets in turns within one run.

Convolutions stand next to torch's in float32, channels-last. Rates count two operations per multiply-add, and each byte read
or written once. The roofline joins two ceilings measured in the same run: the best call of any linear or convolution on that
instruction set, and the most bytes that a copy or any kernel moved. It says how far a kernel is from the best of this run, not
from the processor's data sheet.

With --attention: attention in INT8, bfloat16 and float32 next to torch's, the core alone and in two encoder layers.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import check_names

HELP = "every operator of the library: checked to the bit, then timed on each instruction set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--op", action="append", metavar="NAME", help="only this operator (repeatable)")
    parser.add_argument(
        "--isa", action="append", metavar="NAME", help="only this instruction set (repeatable; default: all found)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="of calls per kernel and instruction set (default: 0.3)"
    )
    parser.add_argument("--threads", type=int, help="default: torch's; with --attention 1")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--check", action="store_true", help="only check")
    kind.add_argument("--attention", action="store_true", help="attention by its arithmetic, next to torch's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")


def run(args: argparse.Namespace) -> int:
    """Check, time, print; returns the exit code."""
    if args.attention:
        return _run_attention(args)
    from optimum_int8 import kernels

    from ..kernel_timings import check_and_time
    from ..kernels import KERNELS

    found = kernels.info()["isa_found"]
    if not found:
        print(f"no native kernels: {kernels.info()['reason']}; scripts/build_kernels builds them", file=sys.stderr)
        return 1
    check_names("operator", args.op or (), sorted({kernel.op for kernel in KERNELS}))
    check_names("instruction set", args.isa or (), found)
    chosen = [kernel for kernel in KERNELS if not args.op or kernel.op in args.op]
    seconds = None if args.check else args.seconds
    result = check_and_time(chosen, args.isa or found, seconds, args.threads)
    if result is None:
        return 1
    _write(args.json, result)
    return 0


def _run_attention(args: argparse.Namespace) -> int:
    from ..attention import measure

    _write(args.json, measure(args.threads or 1))
    return 0


def _write(path: Path | None, result: dict[str, object]) -> None:
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
