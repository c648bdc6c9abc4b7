"""Accuracy and cost of quantization-aware training on real models.

One file per case; each trains for one epoch, once per seed, and compares FP32, static INT8 and trained INT8 on the development
data (`qat` is the mean over the seeds), and on the test data where there are some. The case `cost` compares the time of training
steps, FP32 and fake-quantized in turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..results import FOLDER

HELP = "accuracy and cost of quantization-aware training"

CASES = ("sst2-stress", "sst2-default", "wnut17-default", "cifar10-default", "cost")
RANGES = ("learnable", "moving_average")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--shared", type=Path, required=True, metavar="DIR", help="folder with models/ and data/")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument(
        "--output",
        type=Path,
        default=FOLDER / "training",
        metavar="DIR",
        help="default: benchmarks/results/training",
    )
    parser.add_argument("--ranges", choices=RANGES, help="default: as Int8Trainer")
    parser.add_argument("--range-learning-rate", type=float, help="default: as Int8Trainer")
    parser.add_argument("--examples", type=int, default=4000, help="to train on at most (default: 4000)")
    parser.add_argument("--learning-rate", type=float, help="default: as the quantizers")
    parser.add_argument("--distillation-weight", type=float, help="default: as the quantizers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="default: 42")


def run(args: argparse.Namespace) -> int:
    """Measure the cases; returns the exit code."""
    from ..training import Options, measure_case, write

    options = Options.of(
        args.shared,
        args.examples,
        args.seeds,
        learning_rate=args.learning_rate,
        ranges=args.ranges,
        range_learning_rate=args.range_learning_rate,
        distillation_weight=args.distillation_weight,
    )
    for name in args.cases:
        write(measure_case(name, options), args.output)
    return 0
