"""Tokens per second of `generate()`, next to FP32 and CTranslate2.

Random weights of the real sizes, prompts of 32 tokens, greedy, 32 new tokens. Each model gives one file in the output folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..results import FOLDER, save
from ..tables import make_table
from . import check_names

HELP = "tokens per second of generate(), next to FP32 and CTranslate2"

MODELS = ("gpt2", "t5-base", "tiny")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--models", default="gpt2,t5-base", help=f"some of {', '.join(MODELS)} (default: gpt2,t5-base)")
    parser.add_argument("--threads", type=int, default=2, help="threads of a call (default: 2)")
    parser.add_argument("--seconds", type=float, default=120.0, help="time for measuring each model (default: 120)")
    parser.add_argument(
        "--output", type=Path, default=FOLDER, help="folder of the results (default: benchmarks/results)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, save and print; returns the exit code."""
    names = args.models.split(",")
    check_names("model", names, MODELS)

    from ..generation import measure

    for name in names:
        result = measure(name, args.threads, args.seconds)
        stem = f"generation-{name}-{args.threads}t-{result['machine']['isa_used']}"
        save(result, args.output / f"{stem}.json")
        make_table(result).print()
    return 0
