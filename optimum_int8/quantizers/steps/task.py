"""`Task`: the steps from a dataset to calibration batches and to predictions, which every task fills in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...errors import ConfigError
from ...evaluation.columns import text_columns, texts
from ...evaluation.data import as_dataset, is_dataset, load_dataset, take
from .batching import Batch, Features, feature_length, length_batches, run_batches
from .inputs import model_input_columns, prepare_padding, ready_examples, tokenize
from .provenance import DataSource

if TYPE_CHECKING:
    import datasets

Data: TypeAlias = "datasets.Dataset | Mapping[str, datasets.Dataset] | str | Path"
"""What `evaluation.data.load_dataset` takes."""


class Task:
    """A model with the steps of an evaluation: `preprocess`, `collate`, `forward`, `postprocess`, and `references` and `metric` to compare with.

    A task fills `references` (examples to what is right), `postprocess` (model outputs to predictions) and `metric`;
    `preprocess` (examples to model inputs) too, unless its examples are texts or pairs. One whose predictions need more
    than one batch at a time (answers from overlapping windows of a text) overrides `predictions`.

    Attributes:
        model: the FP32 model.
        tokenizer: None for models without one.
        max_length: longer texts are cut to this many tokens; None takes the model's limit.
        text_column, label_column: names of the columns; None finds them by their usual names.
        batches_from: the data of the latest calibration batches, where it is known.
    """

    greater_is_better: ClassVar[bool] = True
    """Of the task's usual metric."""

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
        self.batches_from: DataSource | None = None

    def get_calibration_dataset(
        self,
        dataset_name: Data,
        num_samples: int = 128,
        dataset_config_name: str | None = None,
        dataset_split: str = "train",
        preprocess_function: Callable[..., Any] | None = None,
        preprocess_batch: bool = True,
        token: str | None = None,
        seed: int = 42,
    ) -> datasets.Dataset:
        """Examples to calibrate on, drawn at random, as Optimum's method of this name gives them.

        Args:
            dataset_name: name on the Hub, local path, `Dataset` or `DatasetDict`.
            num_samples: how many examples; all of them when there are fewer.
            preprocess_function: for `Dataset.map`; leave it out and `quantize` prepares the examples itself.
            preprocess_batch: whether that function takes several examples at once.

        Raises:
            DataError: no such dataset or split, or no rows.
        """
        dataset = load_dataset(dataset_name, split=dataset_split, name=dataset_config_name, token=token)
        dataset = take(dataset, num_samples, seed)
        if preprocess_function is not None:
            dataset = dataset.map(preprocess_function, batched=preprocess_batch)
        return dataset

    def calibration_batches(self, dataset: Data | Iterable[Any], batch_size: int) -> Iterable[Any]:
        """Padded batches with their attention masks, of similar length each, in a random but fixed order."""
        dataset = as_dataset(dataset, rows=128)
        if isinstance(dataset, (str, Path, Mapping)):
            dataset = self.get_calibration_dataset(dataset)
        if not is_dataset(dataset):
            return dataset
        self.batches_from = DataSource.of(dataset)
        features = self.preprocess(load_dataset(dataset))
        order = length_batches([feature_length(f) for f in features], batch_size, seed=0)
        return [self.collate([features[index] for index in indices]) for indices in order]

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
        return ready_examples(self.model, dataset)

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
