"""Text classification: one sentence or a pair of them to a class, or to a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...errors import ConfigError, DataError
from ...evaluation.columns import class_labels, label_column, score_labels
from ..base import Quantizer
from ..steps.batching import Features, run_batches

if TYPE_CHECKING:
    import datasets


class TextClassificationQuantizer(Quantizer):
    """Quantizes `...ForSequenceClassification` models; the metric is accuracy, or Pearson correlation for scores.

    Datasets have a text column (two for sentence pairs) and a label column: numbers, or the model's class names.

    Example:
        >>> quantizer = TextClassificationQuantizer.from_pretrained("my-classifier")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="static"), train.select(range(128)), "my-int8")  # doctest: +SKIP
        >>> quantizer.evaluate(validation).to_dict()["relative_loss"]  # doctest: +SKIP
        0.001
    """

    task = "text-classification"
    head = "ForSequenceClassification"
    auto_class = "AutoModelForSequenceClassification"

    @property
    def is_regression(self) -> bool:
        """Whether the model predicts one number (STS-B) instead of a class."""
        problem = self.model.config.problem_type
        if problem == "multi_label_classification":
            raise ConfigError("the model gives several labels per text, which is not supported; expected one label")
        return problem == "regression" or self.model.config.num_labels == 1

    @property
    def metric(self) -> str:
        """`"accuracy"`, or `"pearsonr"` for a model that predicts a number."""
        return "pearsonr" if self.is_regression else "accuracy"

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """Class numbers of the model, or scores. Raises `DataError` for labels that the model does not have."""
        column = label_column(dataset, self.label_column)
        if self.is_regression:
            return score_labels(dataset, column)
        return class_labels(dataset, column, self.model.config.id2label)

    def training_features(self, dataset: datasets.Dataset) -> list[Features]:
        """Token lists with `labels`: class numbers, or scores."""
        pairs = zip(self.preprocess(dataset), self.references(dataset), strict=True)
        return [{**features, "labels": label} for features, label in pairs]

    def postprocess(self, outputs: Any) -> Sequence[Any]:
        """Class numbers or scores of one batch, from logits `[batch, labels]`."""
        logits = outputs.logits.float()
        return logits[:, 0].tolist() if self.is_regression else logits.argmax(dim=-1).tolist()

    def predict(
        self, inputs: str | Sequence[str | tuple[str, str]], *, batch_size: int = 8, int8: bool = True
    ) -> list[dict[str, Any]]:
        """Labels and scores of texts, as `pipeline("text-classification")` gives them.

        Args:
            inputs: a text, several texts, or several pairs `(text, second text)`.
            int8: use the INT8 model; False uses the FP32 one.

        Raises:
            ConfigError: `int8` before anything was quantized.
            DataError: no texts, or pairs mixed with single texts.
        """
        items = [inputs] if isinstance(inputs, str) else list(inputs)
        pairs = [(item,) if isinstance(item, str) else tuple(item) for item in items]
        if not pairs or len({len(pair) for pair in pairs}) != 1 or len(pairs[0]) > 2:
            raise DataError(f"{len(pairs)} inputs given; expected texts, or pairs of texts, and not both")
        model = self._require_int8() if int8 else self.model
        features = self.tokenize(list(zip(*pairs, strict=True)))

        def forward(batch: dict[str, torch.Tensor]) -> Sequence[torch.Tensor]:
            return list(self.forward(model, batch).logits.float())

        logits = run_batches(features, self.collate, forward, batch_size=batch_size, description="predicting")
        return [self._label(row) for row in logits]

    def _label(self, logits: torch.Tensor) -> dict[str, Any]:
        names = self.model.config.id2label
        if self.is_regression:
            return {"label": names[0], "score": float(logits[0])}
        probabilities = logits.softmax(dim=-1)
        best = int(probabilities.argmax())
        return {"label": names[best], "score": float(probabilities[best])}
