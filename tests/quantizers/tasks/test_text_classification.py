"""The text classification task: single sentences, pairs, scores, and data that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import evaluate
import pytest
import torch
from transformers import pipeline

from optimum_int8 import Int8Config
from optimum_int8.errors import ConfigError, DataError
from optimum_int8.quantizers import TextClassificationQuantizer

from ..tiny import make_dataset, make_model, make_sentences, make_tokenizer, own_labels


@pytest.fixture
def quantizer() -> TextClassificationQuantizer:
    made = TextClassificationQuantizer(make_model(), make_tokenizer())
    made.quantize(Int8Config(approach="dynamic"))
    return made


@pytest.mark.slow
def test_sentence_pairs(quantizer: TextClassificationQuantizer) -> None:
    first, second = make_sentences(12, seed=1), make_sentences(12, seed=2)
    tokenizer = make_tokenizer()
    with torch.no_grad():
        labels = [
            int(
                quantizer.model(**tokenizer(*pair, truncation=True, max_length=40, return_tensors="pt")).logits.argmax()
            )
            for pair in zip(first, second, strict=True)
        ]
    dataset = datasets.Dataset.from_dict({"premise": first, "hypothesis": second, "label": labels})
    report = quantizer.evaluate(dataset, latency_rounds=1)
    assert report.fp32.value == 1.0
    # The second sentence does count.
    alone = own_labels(quantizer.model, first)
    quantizer.text_column = "premise"
    report = quantizer.evaluate(dataset, latency_rounds=1)
    assert report.fp32.value == sum(a == b for a, b in zip(alone, labels, strict=True)) / 12


@pytest.mark.slow
def test_labels_by_name(quantizer: TextClassificationQuantizer) -> None:
    dataset = make_dataset(quantizer.model)
    names = ["positive" if label else "negative" for label in dataset["label"]]
    named = datasets.Dataset.from_dict({"text": dataset["sentence"][:], "label": names})
    assert quantizer.evaluate(named, latency_rounds=1).fp32.value == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["f1", "matthews_correlation"])
def test_other_metrics(metric: str, quantizer: TextClassificationQuantizer) -> None:
    report = quantizer.evaluate(make_dataset(quantizer.model), metric=metric, latency_rounds=1)
    assert (report.metric, report.fp32.value) == (metric, 1.0)


class Zeros(evaluate.EvaluationModule):
    """A user's own metric: how many zeros were predicted."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: datasets.Value("int64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"zeros": float(predictions.count(0))}


@pytest.mark.slow
def test_a_users_metric(quantizer: TextClassificationQuantizer, tmp_path: Path) -> None:
    dataset = make_dataset(quantizer.model)
    report = quantizer.evaluate(dataset, metric=Zeros(cache_dir=str(tmp_path)), latency_rounds=1)
    assert (report.metric, report.fp32.value) == ("zeros", dataset["label"][:].count(0))


@pytest.mark.slow
def test_regression() -> None:
    quantizer = TextClassificationQuantizer(make_model(num_labels=1), make_tokenizer())
    quantizer.quantize(Int8Config(approach="dynamic"))
    sentences = make_sentences(12)
    with torch.no_grad():
        scores = [float(quantizer.model(**make_tokenizer()(s, return_tensors="pt")).logits) for s in sentences]
    dataset = datasets.Dataset.from_dict({"sentence": sentences, "score": [3 * score + 1 for score in scores]})
    report = quantizer.evaluate(dataset, latency_rounds=1)
    assert (report.metric, report.fp32.value) == ("pearsonr", pytest.approx(1.0))
    assert report.int8.value > 0.95
    assert quantizer.predict(sentences[0], int8=False)[0]["score"] == pytest.approx(scores[0], abs=1e-5)


@pytest.mark.slow
def test_predict_gives_what_the_pipeline_gives(quantizer: TextClassificationQuantizer) -> None:
    sentences = make_sentences(7)
    expected = pipeline("text-classification", model=quantizer.model, tokenizer=make_tokenizer())(sentences)
    found = quantizer.predict(sentences, batch_size=3, int8=False)
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    assert quantizer.predict(sentences[0], int8=False) == [pytest.approx(found[0])]
    assert len(quantizer.predict([("word1", "word2"), ("word3", "word4")])) == 2


@pytest.mark.parametrize("inputs", [[], ["word1", ("word1", "word2")], [("a", "b", "c")]])
def test_inputs_that_cannot_be_predicted(inputs: Any, quantizer: TextClassificationQuantizer) -> None:
    with pytest.raises(DataError, match="expected texts, or pairs of texts"):
        quantizer.predict(inputs)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sentence": ["word1"]}, "no label column among sentence"),
        ({"a": ["word1"], "b": ["word1"], "label": [0]}, "cannot tell the text column among a, b, label"),
        ({"sentence": ["word1", None], "label": [0, 1]}, "row 2 of column 'sentence' holds None"),
        ({"sentence": ["word1"], "label": [2]}, "holds 2; the model has the 2 classes 0=NEGATIVE, 1=POSITIVE"),
        ({"sentence": ["word1"], "label": [-1]}, "marks a split without labels"),
        ({"sentence": ["word1"], "label": ["neutral"]}, "holds 'neutral'; the model has the 2 classes"),
        ({"sentence": [], "label": []}, "has no rows"),
    ],
)
def test_data_that_does_not_fit(columns: dict, message: str, quantizer: TextClassificationQuantizer) -> None:
    with pytest.raises(DataError, match=message):
        quantizer.evaluate(datasets.Dataset.from_dict(columns))


def test_several_labels_per_text_are_refused() -> None:
    quantizer = TextClassificationQuantizer(make_model(problem_type="multi_label_classification"), make_tokenizer())
    quantizer.int8_model = quantizer.model
    with pytest.raises(ConfigError, match="several labels per text"):
        quantizer.evaluate(make_dataset(quantizer.model))
