"""Multiple choice: which of several endings goes with a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...errors import ConfigError, DataError
from ...evaluation.choices import Choices, contexts_and_choices, right_choices
from ..base import Quantizer
from ..steps.batching import Batch, Features
from ..steps.inputs import model_input_columns

if TYPE_CHECKING:
    import datasets


class MultipleChoiceQuantizer(Quantizer):
    """Quantizes `...ForMultipleChoice` models; the metric is accuracy.

    Datasets have a context and its choices: SWAG's `sent1`, `sent2`, `ending0` to `ending3`, or a column of lists.

    Example:
        >>> quantizer = MultipleChoiceQuantizer.from_pretrained("my-chooser")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="static"), "swag.jsonl", "my-int8")  # doctest: +SKIP
        >>> quantizer.predict("She sat", ["down.", "the."])["choice"]  # doctest: +SKIP
        'down.'
    """

    task = "multiple-choice"
    head = "ForMultipleChoice"
    auto_class = "AutoModelForMultipleChoice"

    @property
    def metric(self) -> str:
        """`"accuracy"`."""
        return "accuracy"

    def preprocess(self, dataset: datasets.Dataset) -> list[Features]:
        """Inputs of every choice of a row, as lists; or the model's inputs that the dataset has."""
        if model_input_columns(self.model, dataset):
            return super().preprocess(dataset)
        return self._pairs(contexts_and_choices(dataset, self._context_column()))

    def collate(self, features: Sequence[Features]) -> Batch:
        """Padded inputs `[batch, choices, tokens]`."""
        number = len(features[0]["input_ids"])
        if any(len(example["input_ids"]) != number for example in features):
            raise DataError(f"some examples of a batch do not have {number} choices; expected the same number in each")
        flat = [{name: values[i] for name, values in example.items()} for example in features for i in range(number)]
        return {name: values.view(len(features), number, -1) for name, values in super().collate(flat).items()}

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """Index of the right choice. Raises `DataError` for columns that are missing and labels beyond the choices."""
        rows = contexts_and_choices(dataset, self._context_column())
        return right_choices(dataset, len(rows.choices[0]), self.label_column)

    def postprocess(self, outputs: Any) -> Sequence[Any]:
        """Index of the best choice, from logits `[batch, choices]`."""
        return outputs.logits.argmax(dim=-1).tolist()

    def predict(self, context: str, choices: Sequence[str], *, int8: bool = True) -> dict[str, Any]:
        """The best choice: `{"choice", "index", "score", "scores"}`, the scores being probabilities.

        Raises:
            ConfigError: `int8` before anything was quantized.
            DataError: fewer than two choices.
        """
        if isinstance(choices, str) or len(choices) < 2:
            raise DataError(f"{choices!r} given as choices; expected a list of at least two texts")
        model = self._require_int8() if int8 else self.model
        batch = self.collate(self._pairs(Choices([[context] * len(choices)], [list(choices)])))
        with torch.inference_mode():
            scores = self.forward(model, batch).logits[0].float().softmax(dim=-1).tolist()
        best = max(range(len(scores)), key=scores.__getitem__)
        return {"choice": choices[best], "index": best, "score": scores[best], "scores": scores}

    def _context_column(self) -> str | None:
        if self.text_column is None or isinstance(self.text_column, str):
            return self.text_column
        raise ConfigError(f"text_column is {self.text_column!r}; expected the name of the column of contexts")

    def _pairs(self, rows: Choices) -> list[Features]:
        number = len(rows.choices[0])
        flat = [[text for row in column for text in row] for column in rows]
        features = self.tokenize(flat)
        groups = [features[start : start + number] for start in range(0, len(features), number)]
        return [{name: [choice[name] for choice in group] for name in group[0]} for group in groups]
