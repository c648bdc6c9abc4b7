"""The ResNet-20 as `Trainer` takes a model: a batch of columns in, a loss and logits out."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from optimum_int8 import Int8Config, quantize
from optimum_int8.quantizers.steps.training import DEFAULTS
from optimum_int8.training import Int8Trainer, QatSettings

from .resnet import read_images, resnet20

CALIBRATION = 128


class Classifier(nn.Module):
    """`ResNet20` with the arguments and outputs of a Transformers classifier."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Images `[batch, 3, 32, 32]`."""
        logits = self.network(pixel_values)
        return (
            {"logits": logits}
            if labels is None
            else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}
        )


def load(shared: Path) -> tuple[Classifier, list[dict[str, Tensor]], Callable[[nn.Module], float], int]:
    """The FP32 model, all training images of the folder, accuracy on the test images, and how many these are."""
    data = shared / "data" / "cifar10"
    model = Classifier(resnet20(shared / "models" / "resnet20-cifar10" / "resnet20-12fca82f.th")).eval()
    images, classes = read_images(data / "train.zip")
    train = [{"pixel_values": x, "labels": y} for x, y in zip(images, classes, strict=True)]
    test, labels = read_images(data / "test.zip")

    def accuracy(other: nn.Module) -> float:
        with torch.inference_mode():
            right = [
                (other(pixel_values=x)["logits"].argmax(1) == y).sum()
                for x, y in zip(test.split(100), labels.split(100), strict=True)
            ]
        return float(sum(right)) / len(labels)

    return model, train, accuracy, len(labels)


def measure(shared: Path, settings: QatSettings, arguments: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    """FP32, static and trained, once per seed, with the default scheme."""
    model, train, accuracy, tested = load(shared)
    batches = [
        {"pixel_values": torch.stack([row["pixel_values"] for row in train[i : i + 32]])}
        for i in range(0, CALIBRATION, 32)
    ]
    static = quantize(model, Int8Config(approach="static"), batches, progress=False)
    found: dict[str, Any] = {"fp32": accuracy(model), "static": accuracy(static), "qat_by_seed": []}
    given = {name: value for name, value in DEFAULTS.items() if name != "train_sampling_strategy"} | arguments
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            options = TrainingArguments(folder, **given, seed=seed, disable_tqdm=True, logging_steps=50)
            trainer = Int8Trainer(
                copy.deepcopy(model), options, train_dataset=train, settings=settings, calibration_data=batches
            )
            trainer.train()
            found["qat_by_seed"].append(accuracy(trainer.convert()))
        print("seed", seed, found["qat_by_seed"][-1], flush=True)
    found["qat"] = sum(found["qat_by_seed"]) / len(seeds)
    counts = {"train_examples": len(train), "examples": {"test": tested}, "calibration_examples": CALIBRATION}
    return {**found, "metric": "accuracy", "seeds": seeds, **counts, "arguments": given}
