"""Options of `quantize --approach qat`: how long and how to train."""

from __future__ import annotations

import argparse
from typing import Any

from .options import positive


def add_training(parser: argparse.ArgumentParser) -> None:
    """Arguments of the training; what is not given is left to `DEFAULTS` and `SETTINGS` of `quantizers.steps.training`."""
    group = parser.add_argument_group("training (--approach qat)")
    group.add_argument("--epochs", metavar="N", type=float, help="passes over the training data (default: 1)")
    group.add_argument("--learning-rate", metavar="X", type=float, help="highest learning rate (default: 1e-5)")
    group.add_argument("--train-samples", metavar="N", type=positive, help="train on N random examples (default: all)")
    group.add_argument("--train-batch-size", metavar="N", type=positive, help="examples per step (default: 32)")
    group.add_argument(
        "--distillation-weight",
        metavar="X",
        type=float,
        help="share of the FP32 model's answers in the loss (default: 0.5)",
    )


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `Quantizer.quantize` that are about training. The data are read here, before the first long step.

    Raises:
        ConfigError: a setting out of range, or accelerate is missing.
        DataError: no such dataset or split.
    """
    from ..evaluation.data import load_dataset, take
    from ..quantizers.steps.training import SETTINGS, require_accelerate
    from ..training import QatSettings

    require_accelerate()
    dataset = load_dataset(args.dataset, split=args.calibration_split, name=args.dataset_config)
    given = {
        "num_train_epochs": args.epochs,
        "learning_rate": args.learning_rate,
        "per_device_train_batch_size": args.train_batch_size,
        "seed": args.seed,
    }
    weight = {} if args.distillation_weight is None else {"distillation_weight": args.distillation_weight}
    return {
        "train_dataset": take(dataset, args.train_samples, args.seed) if args.train_samples else dataset,
        "training_args": {name: value for name, value in given.items() if value is not None},
        "qat_settings": QatSettings(**{**SETTINGS, **weight}),
    }
