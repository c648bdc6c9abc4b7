"""Arguments that several commands share, and the checks that can be made before any work starts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def positive(text: str) -> int:
    """An `argparse` type: a whole number, at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def add_common(parser: argparse.ArgumentParser) -> None:
    """What every command takes."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result as JSON")
    parser.add_argument("--threads", metavar="N", type=positive, help="threads to compute with (default: torch's)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_data(parser: argparse.ArgumentParser) -> None:
    """How a dataset is read and turned into model inputs."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset-config", metavar="NAME", help='configuration of a Hub dataset ("sst2" of "glue")')
    group.add_argument("--text-column", metavar="NAME[,NAME]", help="column of texts or images; two for sentence pairs")
    group.add_argument("--label-column", metavar="NAME", help="column of labels")
    group.add_argument(
        "--max-length", metavar="N", type=positive, help="cut texts to N tokens (default: the model's limit)"
    )
    group.add_argument("--batch-size", metavar="N", type=positive, default=8, help="examples per batch (default: 8)")
    group.add_argument("--task", help="task of the model (default: the one its class says)")


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """How a model is evaluated."""
    group = parser.add_argument_group("evaluation")
    group.add_argument("--metric", help="accuracy, f1, matthews_correlation, ... (default: the task's)")
    group.add_argument("--split", default="validation", help="split to evaluate on (default: validation)")
    group.add_argument("--samples", metavar="N", type=positive, help="evaluate on the first N examples (default: all)")


def add_budget(parser: argparse.ArgumentParser) -> None:
    """What tuning may cost and how long it may take."""
    group = parser.add_argument_group("accuracy")
    group.add_argument(
        "--accuracy-budget",
        metavar="LOSS",
        type=float,
        help="tune until the relative loss is at most this (0.01: 1 %%)",
    )
    group.add_argument("--max-trials", metavar="N", type=positive, help="models that tuning may measure (default: 50)")
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="stop after this, in the middle of a trial but for the first (default: never)",
    )


def load_quantizer(model: str, args: argparse.Namespace) -> Any:
    """The quantizer of the model's task, with the options of `add_data`."""
    from ..quantizers import quantizer_for
    from ..quantizers.steps.loading import load_config

    quantizer = quantizer_for(load_config(model), args.task)
    return quantizer.from_pretrained(
        model, max_length=args.max_length, text_column=args.text_column, label_column=args.label_column
    )


def load_evaluation_data(source: str, args: argparse.Namespace) -> Any:
    """The examples to evaluate on, by the options of `add_data` and `add_evaluation`."""
    from ..evaluation.data import load_dataset

    dataset = load_dataset(source, split=args.split, name=args.dataset_config)
    return dataset.select(range(min(args.samples, len(dataset)))) if args.samples else dataset


def check_writable(path: Path | None, what: str) -> None:
    """Fail before a long run, not after it. Raises `ConfigError` when `path` cannot be a new file."""
    if path is None:
        return
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"cannot write {what} to {str(path)!r}; expected a file in an existing, writable folder")


def check_output_folder(path: Path, what: str = "--output") -> None:
    """Raises `ConfigError` when `path` cannot become the folder of a checkpoint."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{what} {str(path)!r} is a file; expected a folder, which is made when missing")
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(f"cannot make {what} {str(path)!r}: {str(nearest)!r} is not a writable folder")
