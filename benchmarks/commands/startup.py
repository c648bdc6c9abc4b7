"""Seconds and memory from the imports of torch and of Transformers' models to the first result, each in a new process.

For every model: INT8 that reads the graphs stored in its checkpoint, INT8 that captures them, and FP32, in turns. The result of
INT8 is the same to the bit in all of them, or nothing is printed. `--json` writes every figure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import ROOT, check_names

HELP = "a new process: import, load and first call, in seconds and memory"
MODELS = "minilm,bert-base,gpt2,t5-base,resnet-50"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--models", default=MODELS, help=f"default: {MODELS}")
    parser.add_argument("--approach", choices=("static", "dynamic"), default="static")
    parser.add_argument(
        "--encode", type=int, metavar="TEXTS", help="instead: encode so many texts of mixed lengths, next to OpenVINO"
    )
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a call (default: 1)")
    parser.add_argument("--engines", default="", help="some of int8_stored, int8_captured, fp32 (default: all)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=ROOT / "runs" / "startup",
        help="folder of the checkpoints (default: runs/startup)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and the machine to a file")


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    from .. import startup
    from ..results import describe

    models = args.models.split(",")
    engines = args.engines.split(",") if args.engines else startup.ENGINES
    check_names("model", models, startup.CASES)
    check_names("engine", engines, startup.ENGINES)
    machine = describe(args.threads)
    rows: list[dict[str, Any]] = []
    if args.encode:
        rows = startup.measure_encode(args.approach, args.encode, args.rounds, args.threads, args.cache)
        for row in rows:
            print(", ".join(f"{name} {value:.5g}" for name, value in row.items()))
        return write(args.json, machine, rows)
    for row in startup.measure(models, args.approach, args.rounds, args.threads, args.cache, engines):
        rows.append(row)
        stages = ", ".join(f"{stage} {row[stage]['wall_s']:.2f}" for stage in startup.STAGES)
        print(
            f"{row['model']:<10} {startup.TITLES[row['engine']]:<20} {row['wall_s']['median']:.2f} s "
            f"({row['wall_s']['least']:.2f} to {row['wall_s']['most']:.2f}; processor {row['processor_s']['median']:.2f}): "
            f"{stages}; {row['memory_mb']['median']:.0f} MB; before it Transformers' classes {row['classes']['wall_s']:.2f} s",
            flush=True,
        )
    return write(args.json, machine, rows)


def write(path: Path | None, machine: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    """The rows to a file, if one is asked for; returns the exit code."""
    from ..results import rounded

    if path:
        path.write_text(json.dumps({"machine": machine, "rows": rounded(rows)}, indent=1) + "\n", encoding="utf-8")
    return 0
