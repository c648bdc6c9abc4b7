"""Quantize real models, evaluate what was saved and loaded back, and render the cards: what `python -m benchmarks cards` does."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from optimum_int8 import Int8Config
from optimum_int8.hub import CardInfo, render_card

from .results import describe
from .tuning.subjects import Subject, multi30k, squad, sst2, wnut17

FOLDER = Path(__file__).resolve().parents[1] / "model_cards"
APPROACHES = ("static", "dynamic")
RESULT = "evaluation.json"

MODELS: dict[str, tuple[str, Callable[[Path], Subject], CardInfo]] = {
    "sst2": ("distilbert-minilm-sst2", sst2, CardInfo(dataset="nyu-mll/glue", dataset_config="sst2", language="en")),
    "wnut17": ("electra-minilm-wnut17", wnut17, CardInfo(dataset="leondz/wnut_17", language="en")),
    "squad": (
        "bert-minilm-squad",
        functools.partial(squad, questions=1000),
        CardInfo(dataset="rajpurkar/squad", language="en"),
    ),
    "multi30k": (
        "marian-small-multi30k-en-de",
        functools.partial(multi30k, sentences=1000),
        CardInfo(dataset="bentrevett/multi30k", language="en"),
    ),
}
"""Name to folder of the model, maker of model and data, and what else its card says."""


def measure(subject: Subject, approach: str) -> dict[str, Any]:
    """Quantize, save, load back, evaluate on all the examples of the subject."""
    quantizer = subject.quantizer
    assert quantizer is not None and subject.evaluation is not None
    with tempfile.TemporaryDirectory() as folder:
        calibration = subject.calibration if approach == "static" else None
        quantizer.quantize(Int8Config(approach=approach), calibration, folder)
        quantizer.load_int8(folder)
        report = quantizer.evaluate(subject.evaluation, batch_size=16)
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return {
        "evaluation": report.to_dict(),
        "config": config,
        "examples": subject.examples,
        "machine": describe(torch.get_num_threads()),
    }


def write_card(folder: Path, result: dict[str, Any], info: CardInfo) -> None:
    """The card, from what `evaluation.json` holds."""
    text = render_card(f"optimum_int8/{folder.name}", result["config"], result["evaluation"], info)
    (folder / "README.md").write_text(text, encoding="utf-8")


def table(folder: Path) -> str:
    """One line for each result under `folder`."""
    lines = [
        "| model | metric | examples | FP32 | INT8 | relative loss | size | smaller |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for path in sorted(folder.glob(f"*/{RESULT}")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found = result["evaluation"]
        fp32, int8 = found["fp32"], found["int8"]
        lines.append(
            f"| [{path.parent.name}]({path.parent.name}/README.md) | {found['metric']} | {result['examples']} | "
            f"{fp32['value']:.4f} | {int8['value']:.4f} | {found['relative_loss']:.2%} | {int8['size_mb']:.1f} MB | "
            f"{found['compression_ratio']:.2f}x |"
        )
    return "\n".join(lines) + "\n"


def render(folder: Path = FOLDER) -> None:
    """Cards and table anew from the results that are there."""
    for model, _, info in MODELS.values():
        for path in folder.glob(f"{model}-int8-*/{RESULT}"):
            write_card(path.parent, json.loads(path.read_text(encoding="utf-8")), info)
    introduction = (
        "# Model cards\n\nWhat `python -m benchmarks cards` measured on real models and rendered from `evaluation.json`; "
        "nothing here is typed.\n\n"
    )
    (folder / "README.md").write_text(introduction + table(folder), encoding="utf-8")


def measure_all(names: Iterable[str], shared: Path) -> None:
    """Measure the models named, in every approach, and render after each.

    Args:
        names: keys of `MODELS`.
        shared: folder with `models/` and `data/`.
    """
    for name in names:
        model, make, _ = MODELS[name]
        subject = make(shared)
        for approach in APPROACHES:
            folder = FOLDER / f"{model}-int8-{approach}"
            folder.mkdir(parents=True, exist_ok=True)
            result = measure(subject, approach)
            (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(folder.name, json.dumps(result["evaluation"]), flush=True)
            render()
