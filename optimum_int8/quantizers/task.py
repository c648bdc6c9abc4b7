"""`Task`: the steps from a dataset to predictions, which every task fills in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ConfigError
from ..evaluation.columns import text_columns, texts
from .batching import Batch, Features, run_batches
from .inputs import model_input_columns, prepare_padding, tokenize


class Task:
    """The steps of an evaluation: `preprocess`, `collate`, `forward`, `postprocess`, beside `references` and `metric`.

    A task fills `references` (examples to what is right), `postprocess` (model outputs to predictions) and `metric`;
    `preprocess` (examples to model inputs) too, unless its examples are texts or pairs. One whose predictions need more
    than one batch at a time (answers from overlapping windows of a text) overrides `predictions`.

    Attributes:
        model: the FP32 model.
        tokenizer: None for models without one.
        max_length: longer texts are cut to this many tokens; None takes the model's limit.
        text_column, label_column: names of the columns; None finds them by their usual names.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        max_length: int | None = None,
        text_column: str | Sequence[str] | None = None,
        label_column: str | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.tokenizer_problem = "none was given"
        self.max_length = max_length
        self.text_column = text_column
        self.label_column = label_column

    def collate(self, features: Sequence[Features]) -> Batch:
        """Pad examples to the longest of them and stack them; padding has `attention_mask` 0."""
        if "input_ids" not in features[0]:
            return {name: torch.stack([torch.as_tensor(f[name]) for f in features]) for name in features[0]}
        tokenizer = self.require_tokenizer()
        return dict(tokenizer.pad(list(features), padding="longest", return_attention_mask=True, return_tensors="pt"))

    def preprocess(self, dataset: datasets.Dataset) -> list[Features]:
        """Model inputs of every example: its own columns if they are model inputs already, else its text tokenized."""
        ready = model_input_columns(self.model, dataset)
        if ready:
            return [{name: row[name] for name in ready} for row in dataset]
        return self.tokenize([texts(dataset, name) for name in text_columns(dataset, self.text_column)])

    def training_features(self, dataset: datasets.Dataset) -> list[Features]:
        """Model inputs of every example with what is right, to train on: the dataset's own columns, unless a task knows better."""
        from .training import ready_examples

        return ready_examples(self, dataset)

    def tokenize(self, columns: Sequence[Sequence[str]]) -> list[Features]:
        """Token lists of single texts (one column) or of pairs (two columns), not padded, cut to `max_length`."""
        return tokenize(self.require_tokenizer(), columns, self.max_length, self.model.config)

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """What is right, one entry per example. Filled by a task."""
        raise self._no_task("the references")

    def postprocess(self, outputs: Any) -> Sequence[Any]:
        """The outputs of the model for one batch as one prediction per example. Filled by a task."""
        raise self._no_task("the predictions")

    @property
    def metric(self) -> str:
        """Name of the task's usual metric. Filled by a task."""
        raise self._no_task("a metric")

    def require_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, able to pad. Raises `ConfigError` when there is none."""
        if self.tokenizer is None:
            raise ConfigError(f"the model has no tokenizer ({self.tokenizer_problem}); pass tokenizer=...")
        return prepare_padding(self.tokenizer, self.model.config)

    def predictions(
        self, model: PreTrainedModel, features: Sequence[Features], batch_size: int, description: str
    ) -> list[Any]:
        """One prediction per example, comparable with `references`."""

        def forward(batch: Batch) -> Sequence[Any]:
            return self.postprocess(self.forward(model, batch))

        return run_batches(features, self.collate, forward, batch_size=batch_size, description=description)

    def forward(self, model: PreTrainedModel, batch: Batch) -> Any:
        """One call of the model. Tasks that generate text override this."""
        return model(**batch)

    def _no_task(self, what: str) -> ConfigError:
        return ConfigError(
            f"{type(self).__name__} knows no task, hence not {what} to evaluate with; use the quantizer of the task "
            f"(TextClassificationQuantizer, ...)"
        )
