"""`optimum-int8 quantize MODEL --output DIR`: make, save and, with `--evaluate`, measure an INT8 model.

Instead of MODEL a recipe can be given (`tasks/<task>/<name>.toml`, see `recipe.py`), which is always evaluated.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ..config import APPROACHES, Int8Config
from ..errors import ConfigError
from .options import (
    add_budget,
    add_data,
    add_evaluation,
    check_output_folder,
    load_evaluation_data,
    load_quantizer,
    positive,
)
from .recipe import complete, take_over
from .result import Result
from .training import add_training, training_options

NAME = "quantize"
HELP = "turn an FP32 model into an INT8 checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("source", metavar="MODEL", help="FP32 model: a folder, a name on the Hub, or a recipe (.toml)")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="folder for the INT8 checkpoint (default, recipes only: its name)"
    )
    parser.add_argument(
        "--model", metavar="MODEL", help="with a recipe: the FP32 model to take instead of the recipe's"
    )
    parser.add_argument(
        "--approach",
        choices=APPROACHES,
        help="dynamic needs no data; static is faster; qat trains, on labelled data (default: dynamic)",
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings as Int8Config.save writes them")
    parser.add_argument(
        "--dataset", metavar="DATA", help="data to calibrate on: a file, a folder, or a name on the Hub"
    )
    parser.add_argument("--evaluate", action="store_true", help="compare FP32 and INT8 afterwards")
    parser.add_argument("--evaluation-dataset", metavar="DATA", help="data to evaluate on (default: that of --dataset)")
    add_data(parser)
    group = parser.add_argument_group("calibration")
    group.add_argument("--calibration-samples", metavar="N", type=positive, default=128, help="default: 128")
    group.add_argument("--calibration-split", metavar="NAME", default="train", help="default: train")
    group.add_argument("--seed", metavar="N", type=int, default=42, help="of the choice of examples (default: 42)")
    add_training(parser)
    add_evaluation(parser)
    add_budget(parser)
    take_over(parser)


def run(args: argparse.Namespace) -> Result:
    """Quantize, save and evaluate. Every input is read before the first long step."""
    from ..evaluation import load_metric

    args = complete(args)
    config = _config(args)
    check_output_folder(args.output)
    evaluation_source = args.evaluation_dataset or args.dataset
    if config.needs_data and not args.dataset:
        purpose = "train" if config.approach == "qat" else "calibrate"
        raise ConfigError(f"--approach {config.approach} needs --dataset to {purpose} on; or use --approach dynamic")
    tuned = config.accuracy_budget is not None
    if (args.evaluate or tuned) and not evaluation_source:
        what = "--accuracy-budget" if tuned else "--evaluate"
        raise ConfigError(f"{what} needs --evaluation-dataset (or --dataset)")
    quantizer = load_quantizer(args.model, args)
    validation = load_evaluation_data(evaluation_source, args) if args.evaluate or tuned else None
    if validation is not None:  # what is wrong with it should not wait for the end
        load_metric(args.metric or quantizer.metric)
        quantizer.references(validation)
    calibration = None
    if config.needs_data or (tuned and args.dataset):
        calibration = quantizer.get_calibration_dataset(
            args.dataset, args.calibration_samples, args.dataset_config, args.calibration_split, seed=args.seed
        )
    training = training_options(args) if config.approach == "qat" else {}
    start = time.perf_counter()
    budget = {"evaluation_dataset": validation, "metric": args.metric} if tuned else {}
    quantizer.quantize(config, calibration, args.output, args.batch_size, **budget, **training)
    seconds = time.perf_counter() - start
    report = None
    if args.evaluate:
        report = quantizer.evaluate(validation, metric=args.metric, batch_size=args.batch_size)
    return _result(args, quantizer, config, seconds, report)


def _config(args: argparse.Namespace) -> Int8Config:
    config = Int8Config.load(args.config) if args.config else args.recipe_config or Int8Config()
    given = {name: getattr(args, name) for name in ("approach", "accuracy_budget", "max_trials", "timeout")}
    return dataclasses.replace(config, **{name: value for name, value in given.items() if value is not None})


def _result(args: argparse.Namespace, quantizer: Any, config: Int8Config, seconds: float, report: Any) -> Result:
    from rich.table import Table

    from ..evaluation import describe_machine
    from ..evaluation.size import MEGABYTE, checkpoint_size, fp32_size

    sizes = {"fp32": fp32_size(quantizer.model) / MEGABYTE, "int8": checkpoint_size(args.output) / MEGABYTE}
    metadata = _metadata(quantizer.int8_model)
    kinds = Counter(metadata["modules"].values())
    values = {
        "model": args.model,
        "output": str(args.output),
        "config": config.to_dict(),
        "seconds": seconds,
        "size_mb": sizes,
        "compression_ratio": sizes["fp32"] / sizes["int8"],
        "modules": dict(kinds),
        "fp32": metadata["fp32"],
        "per_token": metadata.get("per_token", []),
        "evaluation": report.to_dict() if report else None,
        "tuning": quantizer.tuning.report.to_dict() if quantizer.tuning else None,
        "within_budget": _within_budget(args.max_relative_loss, report),
        "machine": describe_machine(),
    }
    table = Table(title=f"INT8, {config.approach}", show_header=False)
    table.add_row("model", args.model)
    table.add_row("in INT8", ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())) or "nothing")
    if values["per_token"]:
        table.add_row("per token", f"the inputs of {len(values['per_token'])} linears, which have outlier tokens")
    table.add_row("left FP32", _reasons(metadata["fp32"]))
    table.add_row(
        "checkpoint", f"{sizes['fp32']:.2f} MB to {sizes['int8']:.2f} MB, {values['compression_ratio']:.2f}x smaller"
    )
    table.add_row("time", f"{seconds:.1f} s")
    if quantizer.tuning:
        table.add_row("tuning", quantizer.tuning.report.verdict())
    if values["within_budget"] is not None:
        verdict = "kept" if values["within_budget"] else "NOT kept"
        table.add_row("budget", f"a relative loss of at most {args.max_relative_loss:.1%}: {verdict}")
    shown = [table] + ([report.table()] if report else []) + [f"The INT8 model is in {args.output}"]
    return Result(values, shown)


def _metadata(model: Any) -> dict[str, Any]:
    found = model.config.quantization_config
    return found if isinstance(found, dict) else found.to_dict()


def _reasons(fp32: dict[str, str]) -> str:
    """How many modules stayed FP32 for each reason."""
    counted = Counter(fp32.values()).most_common()
    return "\n".join(f"{number}: {reason}" for reason, number in counted) or "nothing"


def _within_budget(max_relative_loss: float | None, report: Any) -> bool | None:
    """Whether the recipe's limit is kept; None without a limit, or without a relative loss."""
    if max_relative_loss is None or report is None or report.relative_loss is None:
        return None
    return bool(report.relative_loss <= max_relative_loss)
