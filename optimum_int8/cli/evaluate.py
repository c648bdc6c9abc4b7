"""`optimum-int8 evaluate DIR --baseline MODEL --dataset DATA`: FP32 versus INT8."""

from __future__ import annotations

import argparse

from .options import add_data, add_evaluation, load_evaluation_data, load_quantizer
from .result import Result

NAME = "evaluate"
HELP = "compare an INT8 model with the FP32 model it was made from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", metavar="DIR", help="INT8 model: a folder, or a name on the Hub")
    parser.add_argument("--baseline", metavar="MODEL", required=True, help="FP32 model: a folder, or a name on the Hub")
    parser.add_argument("--dataset", metavar="DATA", required=True, help="a file, a folder, or a name on the Hub")
    add_data(parser)
    add_evaluation(parser)


def run(args: argparse.Namespace) -> Result:
    """Load both models and measure them in one run."""
    dataset = load_evaluation_data(args.dataset, args)
    quantizer = load_quantizer(args.baseline, args)
    quantizer.load_int8(args.model)
    report = quantizer.evaluate(dataset, metric=args.metric, batch_size=args.batch_size)
    return Result(report.to_dict(), [report.table()])
