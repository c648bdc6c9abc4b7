"""Recipes: a TOML file that says which model, which data and which settings make a published INT8 model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..config import Int8Config
from ..errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATASET_KEYS = {
    "name": "dataset",
    "config": "dataset_config",
    "text_column": "text_column",
    "label_column": "label_column",
    "calibration_split": "calibration_split",
    "calibration_samples": "calibration_samples",
    "split": "split",
    "max_length": "max_length",
    "batch_size": "batch_size",
}
EVALUATION_KEYS = {"metric": "metric", "samples": "samples", "max_relative_loss": "max_relative_loss"}
TRAINING_KEYS = {
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "samples": "train_samples",
    "batch_size": "train_batch_size",
    "distillation_weight": "distillation_weight",
}
"""Keys of the tables `[dataset]`, `[evaluation]` and `[training]`, and the argument of `quantize` that each stands for."""

SETTINGS = ("model", "task", "seed", *DATASET_KEYS.values(), "metric", "samples", *TRAINING_KEYS.values())
"""Arguments that a recipe may give; on the command line they win."""


def load_recipe(path: Path) -> dict[str, Any]:
    """The arguments of `quantize` that a recipe gives, with `recipe_config`, the `Int8Config` of `[quantization]`.

    Raises:
        ConfigError: unreadable, not TOML, a key missing or unknown, or a value of another type.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # both decoding errors are ValueErrors
        raise ConfigError(f"cannot read the recipe {str(path)!r}: {error}") from error
    for name, kind in (("task", str), ("model", str), ("dataset", dict), ("quantization", dict)):
        if not isinstance(values.get(name), kind):
            raise ConfigError(
                f"the recipe {str(path)!r} has no {name!r}; expected task, model, [dataset], [quantization]"
            )
    arguments: dict[str, Any] = {"task": values["task"], "model": values["model"]}
    tables = (("dataset", DATASET_KEYS), ("evaluation", EVALUATION_KEYS), ("training", TRAINING_KEYS))
    for table, keys in tables:
        for key, value in values.get(table, {}).items():
            if key not in keys:
                raise ConfigError(f"the recipe {str(path)!r} has {key!r} in [{table}]; known are {', '.join(keys)}")
            arguments[keys[key]] = value
    unknown = set(values) - {"task", "model", "quantization", *(table for table, _ in tables)}
    if unknown:
        raise ConfigError(f"the recipe {str(path)!r} has {sorted(unknown)[0]!r}, which is no part of a recipe")
    arguments["recipe_config"] = Int8Config.from_dict(values["quantization"])
    return arguments


def take_over(parser: argparse.ArgumentParser) -> None:
    """Keep the defaults of `SETTINGS` aside, so that `complete` can tell what the user gave."""
    parser.set_defaults(fallback={name: parser.get_default(name) for name in SETTINGS})
    parser.set_defaults(**dict.fromkeys(SETTINGS))


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with those of the recipe, where `source` is one, and with the defaults.

    Raises:
        ConfigError: a bad recipe; `--model` without a recipe; no `--output` without one.
    """
    recipe: dict[str, Any] = {"recipe_config": None, "max_relative_loss": None}
    path = Path(args.source)
    if path.suffix == ".toml":
        recipe |= load_recipe(path)
        recipe["evaluate"] = True
        recipe["output"] = args.output or Path(f"{path.stem}-int8")
    elif args.model:
        raise ConfigError(f"--model is given and {args.source!r} is no recipe (.toml); give one model")
    else:
        recipe["model"] = args.source
        if args.output is None:
            raise ConfigError("--output is missing; expected the folder for the INT8 checkpoint")
    given = {name: value for name, value in vars(args).items() if value is not None and value is not False}
    return argparse.Namespace(**{**vars(args), **args.fallback, **recipe, **given})
