"""LSTM and GRU on INT8 next to torch.ao's quantize_dynamic and FP32, in turns.

For every kind and batch: milliseconds of a call, the least and the median, and how many times as fast INT8 is. `--json` writes
every figure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "LSTM and GRU next to torch.ao's quantize_dynamic"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--units", type=int, default=512, help="default: 512")
    parser.add_argument("--length", type=int, default=128, help="steps (default: 128)")
    parser.add_argument("--batches", default="1,8", help="default: 1,8")
    parser.add_argument("--rounds", type=int, default=15, help="turns (default: 15)")
    parser.add_argument("--threads", type=int, default=2, help="threads of a call (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and the machine to a file")


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    from .. import recurrent
    from ..results import describe, rounded

    machine = describe(args.threads)
    batches = [int(batch) for batch in args.batches.split(",")]
    rows = []
    for row in recurrent.measure(args.units, args.length, batches, args.rounds, args.threads):
        rows.append(row)
        ours = row["dynamic"]
        shown = [
            f"{name} {row[name]['least_ms']:.2f} ({row[name]['median_ms']:.2f})"
            for name in row
            if name not in ("kind", "batch")
        ]
        ratios = [
            f"{row[name]['least_ms'] / ours['least_ms']:.2f} ({row[name]['median_ms'] / ours['median_ms']:.2f}) times as fast as {name}"
            for name in ("torch_ao", "fp32")
            if name in row
        ]
        print(f"{row['kind']} batch {row['batch']}: {', '.join(shown)} ms; dynamic {', '.join(ratios)}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "rows": rounded(rows)}, indent=1) + "\n", encoding="utf-8")
    return 0
