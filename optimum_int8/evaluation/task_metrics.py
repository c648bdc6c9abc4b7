"""Metrics of single tasks: entities, answers, language models. The general ones are in `metrics.py`."""

from __future__ import annotations

import collections
import math
import re
import string
from collections.abc import Sequence
from typing import Any

from .extra import datasets, evaluate
from .local_metric import LocalMetric


class Seqeval(LocalMetric):
    """F1, precision and recall of whole entities, as `conlleval` counts them, from `B-`/`I-` tags per word."""

    summary = "F1 of entities"

    def _info(self) -> evaluate.EvaluationModuleInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        features = datasets.Features({"predictions": tags, "references": tags})
        return evaluate.MetricInfo(description=self.summary, citation="", features=features, inputs_description="")

    def _compute(self, predictions: list[list[str]], references: list[list[str]], **kwargs: Any) -> dict[str, float]:
        from seqeval.metrics import f1_score, precision_score, recall_score

        scores = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
        return {
            name: float(score(references, predictions, zero_division=0, **kwargs)) for name, score in scores.items()
        }


class TokenAccuracy(Seqeval):
    """Share of words with the right tag, from 0 to 1; for tags that are not entities (parts of speech)."""

    summary = "share of words with the right tag"

    def _compute(self, predictions: list[list[str]], references: list[list[str]], **kwargs: Any) -> dict[str, float]:
        from sklearn.metrics import accuracy_score

        flat = [[tag for row in rows for tag in row] for rows in (references, predictions)]
        return {"token_accuracy": float(accuracy_score(*flat, **kwargs))}


class Squad(LocalMetric):
    """F1 over words and exact match, in percent, the best over the references of a question, as SQuAD's script has them.

    A prediction is a text. A reference is the list of accepted texts; an empty one marks a question without an answer,
    for which an empty prediction is right (SQuAD 2).
    """

    summary = "F1 and exact match of answers"

    def _info(self) -> evaluate.EvaluationModuleInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.Sequence(text)})
        return evaluate.MetricInfo(description=self.summary, citation="", features=features, inputs_description="")

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        pairs = [(answer, accepted or [""]) for answer, accepted in zip(predictions, references, strict=True)]
        f1 = [max(_word_f1(answer, other) for other in accepted) for answer, accepted in pairs]
        exact = [any(_normalized(answer) == _normalized(other) for other in accepted) for answer, accepted in pairs]
        return {"f1": 100 * sum(f1) / len(f1), "exact_match": 100 * sum(exact) / len(exact)}


class ExactMatch(Squad):
    """Share of answers, in percent, that are exactly an accepted one (case, articles and punctuation aside)."""

    summary = "exact match of answers"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"exact_match": super()._compute(predictions, references)["exact_match"]}


class Perplexity(LocalMetric):
    """e to the mean negative log likelihood of a token.

    A prediction is the summed negative log likelihood of one text, its reference how many tokens were summed.
    """

    summary = "perplexity"
    value_type = "float64"

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        mean = sum(predictions) / sum(references)
        return {"perplexity": math.exp(mean) if mean < 700 else math.inf}  # exp(710) overflows


def _normalized(answer: str) -> str:
    """Lower case, without punctuation, articles and repeated spaces; SQuAD's official script does the same."""
    plain = "".join(character for character in answer.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def _word_f1(answer: str, other: str) -> float:
    found = _normalized(answer).split()
    right = _normalized(other).split()
    if not found or not right:
        return float(found == right)
    common = sum((collections.Counter(found) & collections.Counter(right)).values())
    return 2 * common / (len(found) + len(right))
