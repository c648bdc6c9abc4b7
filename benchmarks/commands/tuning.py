"""Tuning: real models within 1 % of FP32, outliers with and without SmoothQuant, and the time limit.

Stores one JSON file, and keeps what it has of the subjects that are not named. The subjects of GPT-2 need a small one that is
trained here, in minutes, where the folder of --gpt2 has none yet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..results import FOLDER
from . import ROOT

HELP = "accuracy budgets on real models, with outliers, and within a time limit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="subjects (default: all; an unknown one lists them)")
    parser.add_argument("--shared", type=Path, required=True, metavar="DIR", help="folder with models/ and data/")
    parser.add_argument(
        "--gpt2",
        type=Path,
        default=ROOT / "build" / "benchmarks" / "gpt2-wikitext2",
        metavar="DIR",
        help="the GPT-2 trained on WikiText-2 (default: build/benchmarks/gpt2-wikitext2)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=FOLDER / "tuning" / "tuning.json",
        metavar="FILE",
        help="default: benchmarks/results/tuning/tuning.json",
    )
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds per subject (default: 1800)")
    parser.add_argument("--max-trials", type=int, default=50, help="trials per subject (default: 50)")


def run(args: argparse.Namespace) -> int:
    """Measure the subjects named; returns the exit code."""
    from ..tuning.measure import measure_all
    from ..tuning.subjects import subjects

    measure_all(args.names, subjects(args.shared, args.gpt2), args.output, args.timeout, args.max_trials)
    return 0
