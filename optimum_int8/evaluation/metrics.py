"""Metrics that need no network: local `evaluate.EvaluationModule`s over scikit-learn, scipy and seqeval.

`evaluate.load("accuracy")` downloads a script and runs it. These are the same metrics, under the same names and with
the same `compute(predictions=..., references=...)`, as classes of this package. Any other `EvaluationModule` can be
passed instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError
from .average_precision import MeanAveragePrecision
from .extra import evaluate, missing
from .generation_metrics import Rouge, SacreBleu
from .local_metric import LocalMetric
from .task_metrics import ExactMatch, Perplexity, Seqeval, Squad, TokenAccuracy


class Accuracy(LocalMetric):
    """Share of predictions equal to the reference, from 0 to 1."""

    summary = "share of correct predictions"

    def _compute(self, predictions: Sequence[int], references: Sequence[int], **kwargs: Any) -> dict[str, float]:
        from sklearn.metrics import accuracy_score

        return {"accuracy": float(accuracy_score(references, predictions, **kwargs))}


class _AveragedMetric(LocalMetric):
    """Precision, recall and F1 share their arguments: `average`, `pos_label`, `labels`, as in scikit-learn."""

    function = ""

    def _compute(
        self, predictions: Sequence[int], references: Sequence[int], average: str | None = None, **kwargs: Any
    ) -> dict[str, float]:
        import sklearn.metrics

        if average is None:
            # GLUE reports the F1 of class 1 for two classes; with more classes there is no positive one.
            average = "binary" if set(predictions) | set(references) <= {0, 1} else "macro"
        score = getattr(sklearn.metrics, self.function)
        return {self.name: float(score(references, predictions, average=average, zero_division=0, **kwargs))}


class F1(_AveragedMetric):
    """Harmonic mean of precision and recall: of class 1 for labels 0 and 1, else the mean over classes."""

    summary = "harmonic mean of precision and recall"
    function = "f1_score"


class Precision(_AveragedMetric):
    """Share of positive predictions that are right: of class 1 for labels 0 and 1, else the mean over classes."""

    summary = "share of positive predictions that are right"
    function = "precision_score"


class Recall(_AveragedMetric):
    """Share of positive references that are found: of class 1 for labels 0 and 1, else the mean over classes."""

    summary = "share of positive references that are found"
    function = "recall_score"


class MatthewsCorrelation(LocalMetric):
    """Matthews correlation coefficient, from -1 to 1 (the metric of CoLA)."""

    summary = "Matthews correlation coefficient"

    def _compute(self, predictions: Sequence[int], references: Sequence[int], **kwargs: Any) -> dict[str, float]:
        from sklearn.metrics import matthews_corrcoef

        return {"matthews_correlation": float(matthews_corrcoef(references, predictions, **kwargs))}


class Pearsonr(LocalMetric):
    """Pearson correlation of predicted and true scores, from -1 to 1 (STS-B)."""

    summary = "Pearson correlation"
    value_type = "float64"

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        from scipy.stats import pearsonr  # type: ignore[import-untyped]

        return {"pearsonr": float(pearsonr(references, predictions)[0])}


class Spearmanr(LocalMetric):
    """Spearman rank correlation of predicted and true scores, from -1 to 1 (STS-B)."""

    summary = "Spearman rank correlation"
    value_type = "float64"

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        from scipy.stats import spearmanr

        return {"spearmanr": float(spearmanr(references, predictions)[0])}


METRICS: dict[str, Callable[[], evaluate.EvaluationModule]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "precision": Precision,
    "recall": Recall,
    "matthews_correlation": MatthewsCorrelation,
    "pearsonr": Pearsonr,
    "spearmanr": Spearmanr,
    "seqeval": Seqeval,
    "token_accuracy": TokenAccuracy,
    "squad": Squad,
    "exact_match": ExactMatch,
    "perplexity": Perplexity,
    "rouge": Rouge,
    "sacrebleu": SacreBleu,
    "map": MeanAveragePrecision,
}
"""Name to class. A new metric is one class above and one line here."""


def load_metric(metric: str | evaluate.EvaluationModule) -> evaluate.EvaluationModule:
    """A metric of this package by its name, or the user's own module as it is. Never looks on the network.

    Args:
        metric: a key of `METRICS`, or any `evaluate.EvaluationModule` (also what `evaluate.load` gives).

    Raises:
        ConfigError: an unknown name, or an object that is not an `EvaluationModule`.

    Example:
        >>> load_metric("accuracy").compute(predictions=[0, 1], references=[0, 0])
        {'accuracy': 0.5}
    """
    if isinstance(metric, evaluate.EvaluationModule):
        return metric
    if not isinstance(metric, str):
        raise ConfigError(
            f"metric is a {type(metric).__name__}; expected an evaluate.EvaluationModule or one of {', '.join(METRICS)}"
        )
    if metric not in METRICS:
        raise ConfigError(
            f"unknown metric {metric!r}; known ones are {', '.join(METRICS)}. "
            f"Metrics are never downloaded: for another one pass an evaluate.EvaluationModule"
        )
    return METRICS[metric]()


class MetricValue(NamedTuple):
    """The number that a report shows of a metric, and its name."""

    name: str
    value: float


def compute_metric(
    metric: evaluate.EvaluationModule, predictions: Sequence[Any], references: Sequence[Any]
) -> MetricValue:
    """The one number that a report shows, with its name.

    A module may return several numbers; the one called like the module counts, else the first number.

    Raises:
        ConfigError: the package that computes a metric of ours is not installed.
        DataError: the metric returned no finite number (a correlation of constant predictions, for example).
    """
    try:
        result = metric.compute(predictions=predictions, references=references) or {}
    except ModuleNotFoundError as error:
        if not isinstance(metric, LocalMetric):
            raise
        raise missing((error.name or "").partition(".")[0]) from error
    numbers = {key: float(value) for key, value in result.items() if isinstance(value, (int, float, np.number))}
    if not numbers:
        raise DataError(
            f"the metric {metric.name!r} returned {sorted(result) or 'nothing'}; expected at least one number"
        )
    key = metric.name if metric.name in numbers else next(iter(numbers))
    if not math.isfinite(numbers[key]):
        raise DataError(
            f"the metric {key!r} is {numbers[key]} over {len(predictions)} predictions; "
            f"it is undefined when all predictions or all references are equal: evaluate on more varied data"
        )
    return MetricValue(key, numbers[key])
