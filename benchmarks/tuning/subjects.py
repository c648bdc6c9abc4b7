"""What is tuned: real models with their data, and hostile versions of two of them, whose function is unchanged."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor, nn

from optimum_int8.nn import float_weight
from optimum_int8.quantizers import (
    LanguageModelingQuantizer,
    Quantizer,
    QuestionAnsweringQuantizer,
    TextClassificationQuantizer,
    TokenClassificationQuantizer,
    TranslationQuantizer,
)
from optimum_int8.quantizers.steps.tuning import metric_function

from .gpt2 import train as train_gpt2
from .resnet import read_images, resnet20

FACTOR = 30.0
HARSH_FACTOR = 1000.0
"""Of one more subject, whose plain static model fails for certain."""

CHANNELS = 4
CALIBRATION = 128


@dataclass
class Subject:
    """A model with what it is calibrated and measured on."""

    model: nn.Module
    batches: list[Any]
    metric: Callable[[nn.Module], float]
    metric_name: str
    examples: int
    greater_is_better: bool = True
    hostile: bool = False
    quantizer: Quantizer | None = None  # with its data, where the model has a task of ours
    calibration: datasets.Dataset | None = None
    evaluation: datasets.Dataset | None = None


def of_task(
    quantizer: Quantizer, calibration: datasets.Dataset, evaluation: datasets.Dataset, batch_size: int = 16
) -> Subject:
    """The subject of a quantizer and its two datasets."""
    batches = list(quantizer.calibration_batches(calibration, batch_size))
    metric = metric_function(quantizer, evaluation, None, batch_size)
    better = quantizer.greater_is_better
    return Subject(
        quantizer.model,
        batches,
        metric,
        quantizer.metric,
        len(evaluation),
        better,
        quantizer=quantizer,
        calibration=calibration,
        evaluation=evaluation,
    )


def sst2(shared: Path) -> Subject:
    """DistilBERT on SST-2; all of the dev set."""

    def rows(split: str) -> list[dict[str, Any]]:
        with (shared / "data" / "sst2" / f"{split}.tsv").open(encoding="utf-8", newline="") as lines:
            table = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
        return [{"sentence": row[0], "label": int(row[1])} for row in table]

    train = random.Random(0).sample(rows("train"), CALIBRATION)
    quantizer = TextClassificationQuantizer.from_pretrained(shared / "models" / "distilbert-minilm-sst2")
    return of_task(quantizer, datasets.Dataset.from_list(train), datasets.Dataset.from_list(rows("dev")), batch_size=32)


def wnut17(shared: Path) -> Subject:
    """ELECTRA on WNUT-17; all of the dev set."""
    quantizer = TokenClassificationQuantizer.from_pretrained(shared / "models" / "electra-minilm-wnut17")

    def rows(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"tokens": [], "tags": []}]
        for line in (shared / "data" / "wnut17" / name).read_text(encoding="utf-8").splitlines():
            parts = line.strip().split("\t")
            if len(parts) == 2:
                found[-1]["tokens"].append(parts[0])
                found[-1]["tags"].append(parts[1])
            elif found[-1]["tokens"]:
                found.append({"tokens": [], "tags": []})
        return [row for row in found if row["tokens"]]

    train = random.Random(0).sample(rows("wnut17train.conll"), CALIBRATION)
    return of_task(quantizer, datasets.Dataset.from_list(train), datasets.Dataset.from_list(rows("emerging.dev.conll")))


def squad(shared: Path, questions: int = 1000) -> Subject:
    """BERT on random questions of SQuAD dev, calibrated on SQuADShifts."""
    from optimum_int8.evaluation.readers import read_json

    quantizer = QuestionAnsweringQuantizer.from_pretrained(shared / "models" / "bert-minilm-squad", max_length=320)
    folder = shared / "data" / "squad"
    evaluation = read_json(folder / "dev-v1.1.json").shuffle(seed=0).select(range(questions))
    calibration = read_json(folder / "squadshifts-new_wiki_v1.0.json").shuffle(seed=0).select(range(CALIBRATION))
    return of_task(quantizer, calibration, evaluation)


def multi30k(shared: Path, sentences: int = 1000) -> Subject:
    """Marian on Multi30k test 2016, greedy; all of its sentences."""
    quantizer = TranslationQuantizer.from_pretrained(
        shared / "models" / "marian-small-multi30k-en-de", max_new_tokens=64, generation={"num_beams": 1}
    )

    def rows(name: str, number: int) -> datasets.Dataset:
        folder = shared / "data" / "multi30k"
        sides = [
            gzip.decompress((folder / f"{name}.{side}.gz").read_bytes()).decode().splitlines() for side in ("en", "de")
        ]
        return datasets.Dataset.from_dict({"en": sides[0][:number], "de": sides[1][:number]})

    quantizer.text_column, quantizer.label_column = "en", "de"
    return of_task(quantizer, rows("val", CALIBRATION), rows("test_2016_flickr", sentences))


def cifar10(shared: Path) -> Subject:
    """ResNet-20 on all test images of the folder."""
    folder = shared / "data" / "cifar10"
    model = resnet20(shared / "models" / "resnet20-cifar10" / "resnet20-12fca82f.th")
    images, labels = read_images(folder / "test.zip")
    calibration, _ = read_images(folder / "train.zip", CALIBRATION)

    def accuracy(other: nn.Module) -> float:
        with torch.inference_mode():
            right = [(other(x).argmax(1) == y).sum() for x, y in zip(images.split(100), labels.split(100), strict=True)]
        return float(sum(right)) / len(labels)

    return Subject(model, list(calibration.split(16)), accuracy, "accuracy", len(labels))


def gpt2(folder: Path, shared: Path, lines: int = 400) -> Subject:
    """The GPT-2 of `gpt2.py`, trained now where `folder` has none, on lines of WikiText-2's test split."""
    if not (folder / "config.json").exists():
        train_gpt2(shared / "data" / "wikitext2", folder)
    quantizer = LanguageModelingQuantizer.from_pretrained(folder, max_length=128)

    def rows(split: str, first: int, number: int) -> datasets.Dataset:
        text = (shared / "data" / "wikitext2" / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        kept = [line for line in text if line.strip()][first : first + number]
        return datasets.Dataset.from_dict({"text": kept})

    return of_task(quantizer, rows("valid", 0, CALIBRATION), rows("test", 0, lines))


def outlier_factors(sizes: Tensor, factor: float = FACTOR) -> Tensor:
    """`factor` for the `CHANNELS` largest channels, so that they are outliers indeed, and 1 for the others."""
    factors = torch.ones(len(sizes))
    factors[sizes.topk(CHANNELS).indices] = factor
    return factors


@torch.no_grad()
def hostile_values(model: nn.Module, factor: float = FACTOR) -> None:
    """In each layer of a DistilBERT: value channels scaled, undone in the output projection."""
    for layer in model.distilbert.transformer.layer:
        attention = layer.attention
        factors = outlier_factors(attention.v_lin.weight.norm(dim=1), factor)
        attention.v_lin.weight.mul_(factors.unsqueeze(1))
        attention.v_lin.bias.mul_(factors)
        attention.out_lin.weight.div_(factors)


@torch.no_grad()
def hostile_queries(model: nn.Module) -> None:
    """In each layer of a DistilBERT: query channels scaled, and the key channels they meet divided."""
    for layer in model.distilbert.transformer.layer:
        attention = layer.attention
        factors = outlier_factors(attention.q_lin.weight.norm(dim=1))
        for linear, by in ((attention.q_lin, factors), (attention.k_lin, 1 / factors)):
            linear.weight.mul_(by.unsqueeze(1))
            linear.bias.mul_(by)


def hostile_both(model: nn.Module) -> None:
    """Values, queries and keys."""
    hostile_values(model)
    hostile_queries(model)


@torch.no_grad()
def hostile_norms(model: nn.Module) -> None:
    """In each layer of a GPT-2: channels of the output of both norms scaled, undone in the weights that read them."""
    for block in model.transformer.h:
        for norm, reader in ((block.ln_1, block.attn.c_attn), (block.ln_2, block.mlp.c_fc)):
            factors = outlier_factors(norm.weight.abs())
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
            float_weight(reader).div_(factors)


def subjects(shared: Path, gpt2_folder: Path) -> dict[str, Callable[[], Subject]]:
    """Name to maker; what a maker loads is freed with its subject."""

    def hostile(base: Callable[[], Subject], change: Callable[[nn.Module], None]) -> Callable[[], Subject]:
        def make() -> Subject:
            subject = base()
            change(subject.model)
            subject.hostile = True
            return subject

        return make

    real: dict[str, Callable[[], Subject]] = {
        "sst2": lambda: sst2(shared),
        "wnut17": lambda: wnut17(shared),
        "gpt2-wikitext2": lambda: gpt2(gpt2_folder, shared),
        "multi30k": lambda: multi30k(shared),
        "squad": lambda: squad(shared),
        "resnet20": lambda: cifar10(shared),
    }
    return {
        **real,
        "sst2-values": hostile(real["sst2"], hostile_values),
        "sst2-queries": hostile(real["sst2"], hostile_queries),
        "sst2-both": hostile(real["sst2"], hostile_both),
        "sst2-values-harsh": hostile(real["sst2"], lambda model: hostile_values(model, HARSH_FACTOR)),
        "gpt2-norms": hostile(real["gpt2-wikitext2"], hostile_norms),
    }
