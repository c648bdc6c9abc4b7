"""`optimum-int8 compile DIR`: add captured graphs to an INT8 model, so that it captures nothing when it is loaded."""

from __future__ import annotations

import argparse

from .options import positive
from .result import Result

NAME = "compile"
HELP = "store what an INT8 model captures next to its weights, so that its first call is quick"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", metavar="DIR", help="folder of the INT8 model")
    parser.add_argument("--batch", metavar="N", type=positive, default=2, help="rows of a batch (default: 2)")
    parser.add_argument("--length", metavar="N", type=positive, default=16, help="tokens of a row (default: 16)")


def run(args: argparse.Namespace) -> Result:
    """Call the model with random inputs, and write the file."""
    from ..quantizers.steps.programs import add_programs

    values = {"model": args.model, **add_programs(args.model, args.batch, args.length)}
    return Result(
        values, [f"wrote {values['file']} ({values['bytes'] / 1000:.0f} kB); it is for every batch and length"]
    )
