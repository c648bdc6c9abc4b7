"""Metrics against values worked out by hand, and without a network."""

from __future__ import annotations

import math
import socket
from typing import Any

import datasets
import evaluate
import pytest

from optimum_int8.errors import ConfigError, DataError
from optimum_int8.evaluation.metrics import METRICS, compute_metric, load_metric

PREDICTIONS, REFERENCES = [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1]
# 2 true positives, 1 false positive, 1 false negative, 2 true negatives.
EXPECTED = {
    "accuracy": 4 / 6,
    "f1": 2 * 2 / (2 * 2 + 1 + 1),
    "precision": 2 / 3,
    "recall": 2 / 3,
    "matthews_correlation": (2 * 2 - 1 * 1) / (3 * 3),
    "pearsonr": 3 / 9,  # of two binary variables it is the Matthews coefficient
    "spearmanr": 3 / 9,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a metric opened a connection: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("name", EXPECTED)
def test_value(name: str) -> None:
    assert load_metric(name).compute(predictions=PREDICTIONS, references=REFERENCES) == {
        name: pytest.approx(EXPECTED[name])
    }


TAGS = [["B-a", "I-a", "O", "B-b"], ["O", "B-a"]], [["B-a", "I-a", "O", "B-b"], ["B-b", "O"]]
# 3 predicted entities, 3 true ones, 2 of both; 4 of 6 words.
ANSWERS = ["the Tall tree!", "house", "", "x"], [["tall tree"], ["a red house", "barn"], [], ["y"]]
# Word F1: 1, 2 * 1 / (1 + 2), 1 (rightly no answer), 0.
TASKS = {
    "seqeval": (*TAGS, {"f1": 2 / 3, "precision": 2 / 3, "recall": 2 / 3}),
    "token_accuracy": (*TAGS, {"token_accuracy": 4 / 6}),
    "squad": (*ANSWERS, {"f1": 100 * (1 + 2 / 3 + 1) / 4, "exact_match": 50.0}),
    "exact_match": (*ANSWERS, {"exact_match": 50.0}),
    "perplexity": ([6.0, 2.0], [3.0, 1.0], {"perplexity": math.exp(2)}),
}
"""Predictions, references, and what is right."""


@pytest.mark.parametrize("name", TASKS)
def test_value_of_a_task(name: str) -> None:
    predictions, references, expected = TASKS[name]
    assert load_metric(name).compute(predictions=predictions, references=references) == pytest.approx(expected)


def test_every_class_has_its_name() -> None:
    written_out = {"map": "mean_average_precision"}
    names = {written_out.get(name, name).replace("_", "") for name in METRICS}
    assert {load_metric(name).name.replace("_", "") for name in METRICS} == names


def test_f1_of_three_classes_is_the_mean_over_classes() -> None:
    value = load_metric("f1").compute(predictions=[0, 1, 2, 2], references=[0, 1, 2, 0])["f1"]
    assert value == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)


def test_batches_add_up() -> None:
    metric = load_metric("accuracy")
    metric.add_batch(predictions=[1, 0], references=[1, 1])
    metric.add(prediction=1, reference=1)
    assert metric.compute() == {"accuracy": pytest.approx(2 / 3)}


def test_needs_no_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("os.makedirs", refuse)
    assert load_metric("accuracy").compute(predictions=[1], references=[1]) == {"accuracy": 1.0}


class Distance(evaluate.EvaluationModule):
    """A user's own module, with more than one number and none called like it."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float"), "references": datasets.Value("float")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, Any]:
        errors = [abs(p - r) for p, r in zip(predictions, references, strict=True)]
        return {"per_row": errors, "mean_error": sum(errors) / len(errors), "largest": max(errors)}


def test_a_users_module_is_taken_as_it_is(tmp_path: Any) -> None:
    module = Distance(cache_dir=str(tmp_path), keep_in_memory=True)
    assert load_metric(module) is module
    assert compute_metric(module, [1.0, 2.0], [1.0, 5.0]) == ("mean_error", 1.5)


@pytest.mark.parametrize("wrong", ["bleurt", "", 3, None])
def test_unknown_metric(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="evaluate.EvaluationModule"):
        load_metric(wrong)


@pytest.mark.filterwarnings("ignore")
def test_an_undefined_value_is_an_error() -> None:
    with pytest.raises(DataError, match="undefined"):
        compute_metric(load_metric("pearsonr"), [1.0, 1.0, 1.0], [0.0, 1.0, 2.0])
