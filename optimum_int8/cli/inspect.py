"""`optimum-int8 inspect MODEL_OR_DIR`: the fused blocks, the share of work in INT8, and what was left out and why."""

from __future__ import annotations

import argparse
from typing import Any

from ..config import Int8Config
from .options import positive
from .result import Result

NAME = "inspect"
HELP = "show the blocks of an INT8 model, or those that an FP32 model would have"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", metavar="MODEL_OR_DIR", help="INT8 or FP32 model: a folder, or a name on the Hub")
    parser.add_argument(
        "--tokens", metavar="N", type=positive, default=16, help="length of the trial input (default: 16)"
    )


def run(args: argparse.Namespace) -> Result:
    """Run the model once, because blocks are captured at the first call, then look at it."""
    import torch

    from ..hub import OptimizedModel
    from ..quantization import inspect
    from ..quantizers.steps.loading import is_int8, load_config

    quantized = is_int8(load_config(args.model))
    # A folder may be stored in 16 bits; the quantizers load it in float32, and other dtypes give other blocks.
    settings: dict[str, Any] = {} if quantized else {"dtype": torch.float32}
    model = OptimizedModel.from_pretrained(args.model, **settings)
    if not quantized:
        model = _as_dynamic(model)
    report = inspect(model, _call_once(model, args.tokens))
    shown: list[Any] = [report.table()]
    if not quantized:
        shown.append("This is an FP32 model; shown is what `quantize --approach dynamic` would make of it.")
    return Result({"model": args.model, "int8": quantized, **report.to_dict()}, shown)


def _as_dynamic(model: Any) -> Any:
    from ..quantization import quantize

    return quantize(model, Int8Config(approach="dynamic"), inplace=True)


def _call_once(model: Any, tokens: int) -> Any:
    import torch

    from ..evaluation.architectures import example_inputs

    example = example_inputs(model, 1, tokens)
    with torch.inference_mode():
        model(**example)
    return example
