"""Quantization-aware training of a quantizer's model: examples with labels, batches of them, and the trainer."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import datasets
import torch
from transformers import PreTrainedModel

from ..config import Int8Config
from ..errors import ConfigError, DataError
from ..evaluation.data import load_dataset
from .batching import Batch, Features
from .task import Task

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from ..training import Int8Trainer, QatSettings

IGNORED = -100
"""The label of positions that do not count, as in Transformers' losses."""

TARGETS = ("labels", "label", "label_ids", "start_positions", "end_positions", "next_sentence_label")
"""Arguments of a model's `forward` that are what is right, not what is given."""

DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 1,
    "learning_rate": 1e-5,
    "per_device_train_batch_size": 32,
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
    "train_sampling_strategy": "group_by_length",
    "save_strategy": "no",
    "report_to": "none",
}
"""`TrainingArguments` where none are given: a short continuation of the fine-tuning that made the model, with little padding."""

SETTINGS: dict[str, Any] = {"distillation_weight": 0.5}
"""`QatSettings` where none are given: the model is fine-tuned already, and its own answers are worth as much as the labels."""


class TrainingCollator:
    """A task's batches with their labels; labels of tokens are padded with -100 on the tokenizer's side."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, features: Sequence[Features]) -> Batch:
        """Examples with `labels` (or start and end positions) to one padded batch."""
        targets = [name for name in features[0] if name in TARGETS]
        batch = self.task.collate([{k: v for k, v in f.items() if k not in targets} for f in features])
        for name in targets:
            values = [f[name] for f in features]
            if isinstance(values[0], (list, tuple)):
                values = self._padded(values, next(iter(batch.values())).shape[1])
            batch[name] = torch.tensor(values)
        return batch

    def _padded(self, rows: Sequence[Sequence[int]], length: int) -> list[list[int]]:
        left = self.task.require_tokenizer().padding_side == "left"
        missing = [[IGNORED] * (length - len(row)) for row in rows]
        return [pad + list(row) if left else list(row) + pad for pad, row in zip(missing, rows, strict=True)]


def ready_examples(task: Task, dataset: datasets.Dataset) -> list[Features]:
    """Examples whose columns are the model's arguments already, what is right included.

    Raises:
        DataError: the dataset lacks the model's inputs or its labels.
    """
    arguments = set(inspect.signature(task.model.forward).parameters)
    names = [name for name in dataset.column_names if name in arguments]
    if task.model.main_input_name not in names or not any(name in TARGETS for name in names):
        raise DataError(
            f"training {type(task.model).__name__} takes the model's inputs and labels as columns; found "
            f"{', '.join(dataset.column_names)}. Tokenize the dataset first, or use Int8Trainer with a collator of your own"
        )
    return [{name: row[name] for name in names} for row in dataset]


def make_trainer(
    task: Any,
    config: Int8Config,
    train_dataset: Any,
    calibration: Iterable[Any] | None,
    arguments: TrainingArguments | Mapping[str, Any] | None,
    settings: QatSettings | Mapping[str, Any] | None,
    output_dir: str,
) -> Int8Trainer:
    """An `Int8Trainer` on a copy of the task's model.

    Raises:
        ConfigError: accelerate is missing, or a setting is out of range.
        DataError: the dataset is empty, or lacks a column.
    """
    require_accelerate()
    from transformers import TrainingArguments

    from ..training import Int8Trainer, QatSettings

    if settings is None or isinstance(settings, Mapping):
        settings = QatSettings(**{**SETTINGS, **(settings or {})})
    examples = task.training_features(load_dataset(train_dataset, split="train"))
    if arguments is None or isinstance(arguments, Mapping):
        arguments = TrainingArguments(**{"output_dir": output_dir, **_defaults(examples[0]), **(arguments or {})})
    return Int8Trainer(
        copy.deepcopy(task.model),
        arguments,
        TrainingCollator(task),
        examples,
        processing_class=task.tokenizer,
        int8_config=config,
        settings=settings,
        calibration_data=calibration,
    )


def _defaults(example: Features) -> dict[str, Any]:
    """`DEFAULTS`, as far as they go with the data and with the Transformers that is installed."""
    from transformers import TrainingArguments

    known = {f.name for f in dataclasses.fields(TrainingArguments)}
    known -= set() if "input_ids" in example else {"train_sampling_strategy"}
    return {name: value for name, value in DEFAULTS.items() if name in known}


def train_int8(
    task: Any,
    config: Int8Config,
    train_dataset: Any,
    calibration: Iterable[Any] | None = None,
    arguments: TrainingArguments | Mapping[str, Any] | None = None,
    settings: QatSettings | Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """Train a copy of the task's model and convert it; arguments as `Quantizer.quantize` takes them."""
    with _folder(arguments) as folder:
        trainer = make_trainer(task, config, train_dataset, calibration, arguments, settings, folder)
        trainer.train()
        return trainer.convert()


@contextlib.contextmanager
def _folder(arguments: Any) -> Iterator[str]:
    """Where the training keeps its checkpoints, gone at the end, unless the arguments name a folder."""
    if arguments is not None and not (isinstance(arguments, Mapping) and "output_dir" not in arguments):
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="optimum-int8-training-") as folder:
        yield folder


def require_accelerate() -> None:
    """Raises `ConfigError` where Transformers' `Trainer` would not run."""
    from transformers.utils import is_accelerate_available

    if not is_accelerate_available():
        raise ConfigError("training needs accelerate, which is not installed; pip install optimum-int8[training]")
