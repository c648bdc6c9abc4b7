"""A task of one file, this one, as `docs/developing/add-a-task.md` describes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import BertForNextSentencePrediction, PreTrainedModel

from optimum_int8 import DataError, Int8Config, OptimizedModel, quantizers
from optimum_int8.evaluation.columns import class_labels, label_column
from optimum_int8.quantizers import Quantizer, quantizer_for

from ..tiny import make_config, make_model, make_sentences, make_tokenizer

LABELS = {0: "next", 1: "random"}


class NextSentenceQuantizer(Quantizer):
    """Quantizes `...ForNextSentencePrediction` models: whether the second text of a pair follows the first."""

    task = "next-sentence"
    head = "ForNextSentencePrediction"
    auto_class = "AutoModelForNextSentencePrediction"

    @property
    def metric(self) -> str:
        """`"accuracy"`."""
        return "accuracy"

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """0 where the second text follows the first. Raises `DataError` for other labels than 0 and 1."""
        return class_labels(dataset, label_column(dataset, self.label_column), LABELS)

    def postprocess(self, outputs: Any) -> Sequence[Any]:
        """Class numbers of one batch, from logits `[batch, 2]`."""
        return outputs.logits.argmax(dim=-1).tolist()


@pytest.fixture
def pairs() -> datasets.Dataset:
    columns = {"sentence1": make_sentences(16, seed=1), "sentence2": make_sentences(16, seed=2)}
    return datasets.Dataset.from_dict({**columns, "label": [0, 1] * 8})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    BertForNextSentencePrediction(make_config()).save_pretrained(tmp_path / "fp32")
    make_tokenizer().save_pretrained(tmp_path / "fp32")
    return tmp_path / "fp32"


def accuracy(model: PreTrainedModel, pairs: datasets.Dataset) -> float:
    """By hand, one pair at a time."""
    tokenizer = make_tokenizer()
    right = 0
    with torch.inference_mode():
        for row in pairs:
            inputs = tokenizer(row["sentence1"], row["sentence2"], return_tensors="pt")
            right += int(model(**inputs).logits.argmax()) == row["label"]
    return right / len(pairs)


def test_what_a_task_leaves_out_is_there(folder: Path, pairs: datasets.Dataset, tmp_path: Path) -> None:
    quantizer = NextSentenceQuantizer.from_pretrained(folder)
    quantizer.quantize(Int8Config(approach="static", fuse=False), pairs, tmp_path / "int8")
    report = quantizer.evaluate(pairs, latency_rounds=1)
    assert report.metric == "accuracy"
    for model, measured in ((quantizer.model, report.fp32), (quantizer.int8_model, report.int8)):
        assert model is not None and measured.value == accuracy(model, pairs)
    assert type(OptimizedModel.from_pretrained(tmp_path / "int8")) is BertForNextSentencePrediction
    wrong = pairs.remove_columns("label").add_column("label", [7] * 16)
    with pytest.raises(DataError, match="holds 7"):
        quantizer.evaluate(wrong)


def test_a_listed_task_is_found_by_name_and_by_model(monkeypatch: pytest.MonkeyPatch) -> None:
    config = BertForNextSentencePrediction(make_config()).config
    config.architectures = ["BertForNextSentencePrediction"]
    assert quantizer_for(config) is Quantizer
    monkeypatch.setattr(quantizers, "QUANTIZERS", (*quantizers.QUANTIZERS, NextSentenceQuantizer))
    assert quantizer_for(config) is NextSentenceQuantizer
    assert quantizer_for(make_model().config, "next-sentence") is NextSentenceQuantizer
