"""Columns found by name, labels turned into the model's numbers."""

from __future__ import annotations

import logging
from typing import Any

import datasets
import pytest

from optimum_int8.errors import DataError
from optimum_int8.evaluation.columns import class_labels, label_column, score_labels, text_columns, texts

BINARY = {0: "NEGATIVE", 1: "POSITIVE"}
GENERIC = {0: "LABEL_0", 1: "LABEL_1"}


def with_columns(*names: str) -> datasets.Dataset:
    return datasets.Dataset.from_dict({name: ["x"] for name in names})


def labelled(values: list[Any], names: list[str] | None = None) -> datasets.Dataset:
    dataset = datasets.Dataset.from_dict({"label": values})
    return dataset.cast_column("label", datasets.ClassLabel(names=names)) if names else dataset


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["sentence", "label"], ("sentence",)),
        (["idx", "sentence2", "sentence1", "label"], ("sentence1", "sentence2")),
        (["question", "sentence", "label"], ("question", "sentence")),
        (["title", "text", "label"], ("text",)),
        (["utterance", "label"], ("utterance",)),  # the only column of texts
    ],
)
def test_text_columns(columns: list[str], found: tuple[str, ...]) -> None:
    assert text_columns(with_columns(*columns)) == found


def test_wanted_text_columns() -> None:
    dataset = with_columns("sentence", "a", "b")
    assert text_columns(dataset, "a") == ("a",)
    assert text_columns(dataset, "a, b") == text_columns(dataset, ["a", "b"]) == ("a", "b")
    with pytest.raises(DataError, match="no text column 'c'; the dataset has sentence, a, b"):
        text_columns(dataset, "c")
    with pytest.raises(DataError, match="3 text columns given"):
        text_columns(dataset, "a,b,c")
    with pytest.raises(DataError, match="cannot tell the text column among a, b"):
        text_columns(with_columns("a", "b"))


def test_label_column() -> None:
    assert label_column(with_columns("text", "label")) == "label"
    assert label_column(with_columns("text", "mood"), "mood") == "mood"
    with pytest.raises(DataError, match="no label column among text, mood"):
        label_column(with_columns("text", "mood"))
    with pytest.raises(DataError, match="no label column 'x'"):
        label_column(with_columns("text", "label"), "x")


def test_texts() -> None:
    dataset = datasets.Dataset.from_dict({"s": ["a", None], "n": [1, 2]})
    assert texts(dataset, "n") == ["1", "2"]
    with pytest.raises(DataError, match="row 2 of column 's' holds None"):
        texts(dataset, "s")


@pytest.mark.parametrize("values", [[1, 0], ["positive", "Negative"], ["1", "0"], [1.0, 0.0], [True, False]])
def test_class_labels(values: list[Any]) -> None:
    assert class_labels(labelled(values), "label", BINARY) == [1, 0]


def test_classes_in_another_order_are_matched_by_name() -> None:
    assert class_labels(labelled([0, 1], ["positive", "negative"]), "label", BINARY) == [1, 0]


def test_other_names_are_matched_by_number(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert class_labels(labelled([0, 1], ["not_equivalent", "equivalent"]), "label", GENERIC) == [0, 1]
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert class_labels(labelled([0, 1], ["bad", "good"]), "label", BINARY) == [0, 1]
    assert "matched by number" in caplog.text


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (labelled([0, 2]), "row 2 of column 'label' holds 2; the model has the 2 classes 0=NEGATIVE, 1=POSITIVE"),
        (labelled(["positive", "neutral"]), "row 2 .* holds 'neutral'"),
        (labelled([1, -1]), "row 2 .* is -1, which marks a split without labels"),
        (labelled([1, None]), "row 2 .* holds None"),
        (labelled([1.0, 0.5]), "row 2 .* holds 0.5"),
        (labelled([0, 1, 2], ["a", "b", "c"]), "has the 3 classes a, b, c; the model has the 2 classes"),
        (labelled([[0], [1]]), "row 1 .* holds "),
    ],
)
def test_labels_that_do_not_match(dataset: datasets.Dataset, message: str) -> None:
    with pytest.raises(DataError, match=message):
        class_labels(dataset, "label", BINARY)


def test_score_labels() -> None:
    assert score_labels(labelled([1, 4]), "label") == [1.0, 4.0]
    with pytest.raises(DataError, match="row 2 .* holds nan"):
        score_labels(labelled([1.0, float("nan")]), "label")
    with pytest.raises(DataError, match="row 1 .* holds 'x'"):
        score_labels(labelled(["x"]), "label")
