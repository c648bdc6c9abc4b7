"""The model cards: quantize real models, evaluate what was saved and loaded back, and render the cards from these results alone.

Writes `model_cards/<model>-int8-<approach>/` with `evaluation.json` and the `README.md` made from it, and the table of
`model_cards/README.md`. Without --shared nothing is measured: cards and table are made from the results that are there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import check_names

HELP = "accuracy of real models, static and dynamic; makes model_cards/"

MODELS = ("sst2", "wnut17", "squad", "multi30k")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--shared", type=Path, metavar="DIR", help="folder with models/ and data/")


def run(args: argparse.Namespace) -> int:
    """Measure the models named, then render everything; returns the exit code."""
    check_names("model", args.names, MODELS)

    from ..cards import measure_all, render

    if args.shared:
        measure_all(args.names or MODELS, args.shared)
    render()
    return 0
