"""Quantization-aware training of a task's model: batches of examples with labels, and the trainer."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from ...config import Int8Config
from ...errors import ConfigError
from ...evaluation.data import load_dataset
from .batching import IGNORED, Batch, Features
from .inputs import TARGETS
from .task import Task

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from ...training import Int8Trainer, QatSettings

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


@dataclasses.dataclass(frozen=True)
class TrainingRequest:
    """What to train on, and how.

    Args:
        dataset: labelled examples, as `Quantizer.evaluate` takes them.
        arguments: a mapping of some overrides `DEFAULTS`.
        settings: a mapping of some overrides `SETTINGS`.
    """

    dataset: Any = None
    arguments: TrainingArguments | Mapping[str, Any] | None = None
    settings: QatSettings | Mapping[str, Any] | None = None


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


def make_trainer(
    task: Task, config: Int8Config, request: TrainingRequest, calibration: Iterable[Any] | None, output_dir: str
) -> Int8Trainer:
    """An `Int8Trainer` on a copy of the task's model.

    Args:
        calibration: batches that ranges start from; None takes training examples.
        output_dir: of the training, where the request's arguments name none.

    Raises:
        ConfigError: accelerate is missing, or a setting is out of range.
        DataError: the dataset is empty, or lacks a column.
    """
    require_accelerate()
    from transformers import TrainingArguments

    from ...training import Int8Trainer, QatSettings

    settings = request.settings
    if settings is None or isinstance(settings, Mapping):
        settings = QatSettings(**{**SETTINGS, **(settings or {})})
    examples = task.training_features(load_dataset(request.dataset, split="train"))
    arguments = request.arguments
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
    task: Task, config: Int8Config, request: TrainingRequest, calibration: Iterable[Any] | None = None
) -> PreTrainedModel:
    """Train a copy of the task's model and convert it; `calibration` as `make_trainer` takes it."""
    with _folder(request.arguments) as folder:
        trainer = make_trainer(task, config, request, calibration, folder)
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
