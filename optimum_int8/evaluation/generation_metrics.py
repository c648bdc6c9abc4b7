"""Metrics of generated texts: ROUGE for summaries, BLEU for translations."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from .extra import datasets, evaluate
from .local_metric import LocalMetric

_MISSING = "{} needs the package {}, which is not installed: pip install 'optimum-int8[generation]'"


class _TextMetric(LocalMetric):
    """A prediction is a text, a reference the list of texts that are right."""

    def _info(self) -> evaluate.EvaluationModuleInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.Sequence(text)})
        return evaluate.MetricInfo(description=self.summary, citation="", features=features, inputs_description="")


class Rouge(_TextMetric):
    """ROUGE-L, 1, 2 and Lsum, F-measures from 0 to 1 with stemming, the best over the references of a text."""

    summary = "ROUGE of summaries"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        try:
            from rouge_score import rouge_scorer
        except ImportError as error:
            raise ConfigError(_MISSING.format("ROUGE", "rouge-score")) from error
        names = ("rougeL", "rouge1", "rouge2", "rougeLsum")
        scorer = rouge_scorer.RougeScorer(list(names), use_stemmer=True)
        scores = [scorer.score_multi(right, found) for found, right in zip(predictions, references, strict=True)]
        return {name: sum(score[name].fmeasure for score in scores) / len(scores) for name in names}


class SacreBleu(_TextMetric):
    """BLEU of a corpus as sacreBLEU defines it, from 0 to 100, on texts that are not tokenized."""

    summary = "BLEU of translations"

    def _compute(self, predictions: list[str], references: list[list[str]], **kwargs: Any) -> dict[str, float]:
        try:
            import sacrebleu
        except ImportError as error:
            raise ConfigError(_MISSING.format("BLEU", "sacrebleu")) from error
        most = max(len(right) for right in references)
        columns = [[right[i] if i < len(right) else None for right in references] for i in range(most)]
        return {"sacrebleu": float(sacrebleu.corpus_bleu(predictions, columns, **kwargs).score)}
