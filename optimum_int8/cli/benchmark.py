"""`optimum-int8 benchmark ARCHITECTURE`: FP32, BF16 and INT8 speed from a configuration alone."""

from __future__ import annotations

import argparse

from ..errors import ConfigError
from .options import positive
from .result import Result

NAME = "benchmark"
HELP = "time an architecture with random weights: FP32, BF16 and INT8 in turns"


def shapes(text: str) -> list[tuple[int, int]]:
    """An `argparse` type: `1x16,8x128` as (batch, tokens) pairs."""
    found = []
    for part in text.split(","):
        batch, separator, tokens = part.partition("x")
        if not separator:
            raise argparse.ArgumentTypeError(f"{part!r} is not a shape; expected BATCHxTOKENS, as in 1x16,1x128")
        found.append((positive(batch), positive(tokens)))
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "architecture", metavar="ARCHITECTURE", nargs="?",
        help="a preset (bert-base, distilbert-base, roberta-base, ...), a config.json or its folder, a name on the Hub",
    )  # fmt: skip
    parser.add_argument("--shapes", type=shapes, default="1x16,1x128", help="BATCHxTOKENS,... (default: 1x16,1x128)")
    parser.add_argument(
        "--approach", nargs="+", choices=("static", "dynamic"), default=["static", "dynamic"], help="default: both"
    )
    parser.add_argument("--no-bf16", action="store_true", help="leave bfloat16 out")
    parser.add_argument(
        "--rounds", metavar="N", type=positive, default=20, help="timed calls of each model (default: 20)"
    )
    group = parser.add_argument_group("another architecture", "sizes that are not given are the defaults of the type")
    group.add_argument("--model-type", metavar="TYPE", help="as in config.json: bert, distilbert, roberta, gpt2, ...")
    for size in ("hidden", "layers", "heads", "intermediate", "vocabulary"):
        group.add_argument(f"--{size}", metavar="N", type=positive)


def run(args: argparse.Namespace) -> Result:
    """Build the models and time them."""
    from ..evaluation.architectures import SIZE_NAMES, find_config, make_config
    from ..evaluation.benchmark import benchmark

    sizes = {size: getattr(args, size) for size in SIZE_NAMES}
    if bool(args.architecture) == bool(args.model_type):
        raise ConfigError("give either an architecture (bert-base, a config.json, ...) or --model-type with sizes")
    if args.architecture and any(sizes.values()):
        raise ConfigError("sizes (--hidden, --layers, ...) go with --model-type; an architecture has its own")
    config = make_config(args.model_type, **sizes) if args.model_type else find_config(args.architecture)
    report = benchmark(
        config, args.shapes, list(dict.fromkeys(args.approach)), bf16=not args.no_bf16, rounds=args.rounds
    )
    return Result(report.to_dict(), [report.table()])
