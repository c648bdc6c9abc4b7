"""Accuracy and cost of quantization-aware training on real models: what `python -m benchmarks training` measures."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from optimum_int8 import Int8Config, TextClassificationQuantizer, TokenClassificationQuantizer
from optimum_int8.evaluation import describe_machine
from optimum_int8.evaluation.data import load_dataset, take
from optimum_int8.quantizers.steps.training import DEFAULTS, SETTINGS, TrainingCollator
from optimum_int8.quantizers.steps.tuning import metric_function
from optimum_int8.training import Int8Trainer, QatSettings

from .tuning.trained import measure as measure_images

STRESS = {"weight_granularity": "per_tensor", "activation_bits": 6}
SST2 = (TextClassificationQuantizer, "distilbert-minilm-sst2", "sst2/train.tsv", {"dev": "sst2/dev.tsv"})
WNUT = (
    TokenClassificationQuantizer,
    "electra-minilm-wnut17",
    "wnut17/wnut17train.conll",
    {"dev": "wnut17/emerging.dev.conll", "test": "wnut17/emerging.test.annotated"},
)
CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "sst2-stress": (SST2, STRESS),
    "sst2-default": (SST2, {}),
    "wnut17-default": (WNUT, {}),
}
CIFAR10 = "cifar10-default"
COST_STEPS, COST_ROUNDS = 3, 5


@dataclass(frozen=True)
class Options:
    """What all cases are measured with.

    Args:
        shared: folder with `models/` and `data/`.
        examples: to train on at most.
        seeds: one training for each.
    """

    shared: Path
    examples: int
    seeds: list[int]
    learning_rate: float
    settings: QatSettings

    @classmethod
    def of(
        cls, shared: Path, examples: int, seeds: list[int], *, learning_rate: float | None, **settings: Any
    ) -> Options:
        """Options where None stands for the default of the trainer (`settings` are `QatSettings`) and of the quantizers."""
        given = {name: value for name, value in settings.items() if value is not None}
        rate = DEFAULTS["learning_rate"] if learning_rate is None else learning_rate
        return cls(shared, examples, seeds, rate, QatSettings(**{**SETTINGS, **given}))


def measure(
    shared: Path,
    task: tuple[Any, ...],
    scheme: dict[str, Any],
    settings: QatSettings,
    arguments: dict[str, Any],
    examples: int,
    seeds: list[int],
) -> dict[str, Any]:
    """FP32, static and trained on one task."""
    quantizer, train, parts = load(shared, task, examples)
    calibration = take(train, 128, seed=42)
    metrics = {name: metric_function(quantizer, rows, None, 32) for name, rows in parts.items()}

    def scores(model: Any) -> dict[str, float]:
        return {name: metric(model) for name, metric in metrics.items()}

    static = scores(quantizer.quantize(Int8Config(approach="static", **scheme), calibration))
    found: dict[str, Any] = {name: {"fp32": v, "static": static[name]} for name, v in scores(quantizer.model).items()}
    trained, seconds = [], []
    for seed in seeds:
        start = time.perf_counter()
        quantizer.quantize(
            Int8Config(approach="qat", **scheme),
            calibration,
            train_dataset=train,
            training_args={**arguments, "seed": seed, "disable_tqdm": True, "logging_steps": 20},
            qat_settings=settings,
        )
        seconds.append(time.perf_counter() - start)
        trained.append(scores(quantizer.int8_model))
        print("seed", seed, trained[-1], flush=True)
    for name, values in found.items():
        values["qat_by_seed"] = [scores[name] for scores in trained]
        values["qat"] = statistics.mean(values["qat_by_seed"])
    dev = found.pop("dev")
    lost = dev["fp32"] - dev["static"]
    return {
        **dev,
        "recovered": (dev["qat"] - dev["static"]) / lost if lost > 0 else None,
        **found,
        "metric": quantizer.metric,
        "seeds": seeds,
        "training_seconds": seconds,
        "train_examples": len(train),
        "examples": {name: len(rows) for name, rows in parts.items()},
        "calibration_examples": len(calibration),
        "arguments": {**DEFAULTS, **arguments},
    }


def load(shared: Path, task: tuple[Any, ...], examples: int) -> tuple[Any, Any, dict[str, Any]]:
    """The quantizer, the training examples, and the examples to measure on by the name of their part."""
    kind, model, train, parts = task
    quantizer = kind.from_pretrained(shared / "models" / model)
    rows = take(load_dataset(shared / "data" / train), examples, seed=0)
    return quantizer, rows, {name: load_dataset(shared / "data" / file) for name, file in parts.items()}


def cost(shared: Path, settings: QatSettings) -> dict[str, Any]:
    """Seconds of a training step in turns: `COST_STEPS` FP32 ones, as many fake-quantized ones, `COST_ROUNDS` times. By the clock, and of
    the processor, which other programs on the machine disturb less."""
    quantizer, train, _ = load(shared, SST2, 4000)
    features = quantizer.training_features(train)
    batch = DEFAULTS["per_device_train_batch_size"]
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    kinds = ("fp32", "qat")
    seconds: dict[str, dict[str, list[float]]] = {clock: {kind: [] for kind in kinds} for clock in clocks}
    with tempfile.TemporaryDirectory() as folder:

        def trainer(kind: str, rows: list[Any]) -> Trainer:
            arguments = TrainingArguments(folder, **{**DEFAULTS, "num_train_epochs": 1}, disable_tqdm=True)
            model = type(quantizer.model).from_pretrained(shared / "models" / SST2[1], dtype=torch.float32)
            if kind == "fp32":
                return Trainer(model, arguments, TrainingCollator(quantizer), rows)
            return Int8Trainer(model, arguments, TrainingCollator(quantizer), rows, settings=settings)

        for turn in range(COST_ROUNDS + 1):
            rows = features[turn * COST_STEPS * batch :][: COST_STEPS * batch]
            for kind in kinds:
                made = trainer(kind, rows)
                start = {name: clock() for name, clock in clocks.items()}
                made.train()
                if turn:  # the first round warms up
                    for name, clock in clocks.items():
                        seconds[name][kind].append((clock() - start[name]) / COST_STEPS)
    ratios = {
        name: [b / a for a, b in zip(found["fp32"], found["qat"], strict=True)] for name, found in seconds.items()
    }
    return {
        "seconds_per_step": {
            name: {k: statistics.median(v) for k, v in found.items()} for name, found in seconds.items()
        },
        "ratio": {name: statistics.median(found) for name, found in ratios.items()},
        "ratios": {name: sorted(found) for name, found in ratios.items()},
        "batch_size": batch,
        "steps": COST_STEPS,
    }


def measure_case(name: str, options: Options) -> dict[str, Any]:
    """The result of one case, with its machine and load."""
    load_average = os.getloadavg()
    settings = options.settings
    arguments = {"learning_rate": options.learning_rate}
    if name == "cost":
        values: dict[str, Any] = {"settings": vars(settings), **cost(options.shared, settings)}
    elif name == CIFAR10:
        values = {"model": "resnet20-cifar10", "settings": vars(settings)}
        values |= measure_images(options.shared, settings, arguments, options.seeds)
    else:
        task, scheme = CASES[name]
        values = {
            "model": task[1],
            "scheme": Int8Config(approach="qat", **scheme).to_dict(),
            "settings": vars(settings),
        }
        values |= measure(options.shared, task, scheme, settings, arguments, options.examples, options.seeds)
    return {"case": name, **values, "load_average": load_average, "machine": describe_machine()}


def write(result: dict[str, Any], folder: Path) -> None:
    """Save the result of a case under its name, and print what decides."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result['case']}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shown = ("fp32", "static", "qat", "recovered", "training_seconds", "ratio", "ratios", "seconds_per_step")
    print(result["case"], {key: result[key] for key in shown if key in result}, flush=True)
