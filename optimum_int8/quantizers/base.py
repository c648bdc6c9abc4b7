"""`Quantizer`: load a model, quantize it, compare it with FP32, save it. One subclass per task."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import Int8Config
from ..errors import ConfigError
from ..evaluation.data import load_dataset
from ..evaluation.latency import PairedLatency, paired_latency
from ..evaluation.machine import describe_machine
from ..evaluation.report import EvaluationReport
from ..evaluation.size import checkpoint_size, fp32_size, stored_size
from ..hub import CardInfo, Pushed, card_data, push_to_hub
from .steps import loading
from .steps.batching import Features, feature_length
from .steps.build import build_int8
from .steps.provenance import DataSource, Provenance, card_facts
from .steps.task import Data, Task
from .steps.training import TrainingRequest
from .steps.tuning import TuningRequest, sensitivity_files

if TYPE_CHECKING:
    import evaluate

    from ..tuning import TuneResult

Q = TypeVar("Q", bound="Quantizer")

_TIMED_EXAMPLES = 5
"""Different lengths that latency is measured at, with the usual number of rounds."""


class Quantizer(Task):
    """Quantizes any Transformers model; its subclasses know a task (see `Task`) and can also evaluate.

    Args:
        model: the FP32 model; `from_pretrained` loads it.
        tokenizer: None for models without one.
        options: `max_length`, `text_column`, `label_column`, as `Task` has them.

    Attributes:
        int8_model: the INT8 model, once `quantize` or `load_int8` was called.
        report: what `evaluate` found last about this `int8_model`.
        tuning: how `int8_model` was found, when an accuracy budget was set.

    Example:
        >>> quantizer = Quantizer.from_pretrained("my-model")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="dynamic"), save_directory="my-model-int8")  # doctest: +SKIP
    """

    task: ClassVar[str] = "any"
    head: ClassVar[str | tuple[str, ...] | None] = None
    """How the class that `config.json` names must end; of several endings one is enough."""
    own_options: ClassVar[tuple[str, ...]] = ()
    """Arguments of the constructor that only this task has; `from_pretrained` takes them too."""
    auto_class: ClassVar[str | None] = None
    """The Transformers auto class to load with; None takes the class that `config.json` names."""
    load_processor: ClassVar[Callable[..., loading.LoadedProcessor]] = staticmethod(loading.load_tokenizer)
    """Loads what makes model inputs from examples, as `loading.load_tokenizer` does."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, **options: Any
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.int8_model: PreTrainedModel | None = None
        self.checkpoint: Path | None = None  # the folder that holds `int8_model`
        self.report: EvaluationReport | None = None
        self.tuning: TuneResult | None = None
        self._provenance = Provenance()  # of `int8_model`

    @classmethod
    def from_pretrained(
        cls: type[Q],
        name_or_path: str | Path,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_length: int | None = None,
        text_column: str | Sequence[str] | None = None,
        label_column: str | None = None,
        **kwargs: Any,
    ) -> Q:
        """Load an FP32 model, and the tokenizer next to it, from a folder or the Hub.

        Args:
            kwargs: the task's `own_options`; the rest is for Transformers' `from_pretrained`: `revision`, `token`,
                `subfolder`, `dtype` (float32 when not given), `attn_implementation`, settings of the configuration, ...

        Raises:
            ConfigError: the model is already INT8, or of another task.
            CheckpointError: it cannot be read, or lacks weights.
        """
        own = {option: kwargs.pop(option) for option in cls.own_options if option in kwargs}
        model = loading.load_fp32_model(name_or_path, auto_class=cls.auto_class, head=cls.head, **kwargs)
        problem = None
        if tokenizer is None:
            tokenizer, problem = cls.load_processor(name_or_path, **kwargs)
        made = cls(model, tokenizer, max_length=max_length, text_column=text_column, label_column=label_column, **own)
        made.tokenizer_problem = problem or made.tokenizer_problem
        return made

    def quantize(
        self,
        config: Int8Config | None = None,
        calibration_dataset: Data | Iterable[Any] | None = None,
        save_directory: str | Path | None = None,
        batch_size: int = 8,
        *,
        train_dataset: Data | None = None,
        training_args: Any = None,
        qat_settings: Any = None,
        evaluation_dataset: Data | None = None,
        metric: str | evaluate.EvaluationModule | None = None,
    ) -> PreTrainedModel:
        """Make `int8_model` from `model`, which stays as it is. With `config.accuracy_budget`, tune until it is kept.

        Args:
            config: None means `Int8Config()`, which is dynamic.
            calibration_dataset: needed unless the approach is dynamic: a `Dataset` or rows (all are used), whatever else
                `get_calibration_dataset` takes (128 examples are drawn), or an iterable of ready batches.
            save_directory: where to save the INT8 model with its tokenizer; None saves nothing.
            batch_size: examples per calibration batch.
            train_dataset: for "qat": labelled examples, as `evaluate` takes them; ranges start from them if there are no others.
            training_args: `TrainingArguments`, or a mapping of some; None takes `quantizers.steps.training.DEFAULTS`.
            qat_settings: `training.QatSettings`, or a mapping of some; None takes `quantizers.steps.training.SETTINGS`.
            evaluation_dataset, metric: with an accuracy budget only: what `evaluate` takes, to keep the budget by. Trials are
                logged to `<save_directory>.trials.json`, from which an interrupted search goes on.

        Raises:
            ConfigError: "qat" without `train_dataset` or accelerate; an accuracy budget without `evaluation_dataset`.
            CalibrationError: no calibration data for a static model, or none of it usable.
            DataError: the dataset is empty or lacks a column.
            QuantizationError: the model has nothing to quantize.
            CheckpointError: it cannot be saved.
        """
        config = config or Int8Config()
        self.batches_from = None
        self.int8_model, self.tuning = build_int8(
            self,
            config,
            calibration_dataset,
            batch_size,
            training=TrainingRequest(train_dataset, training_args, qat_settings),
            tuning=TuningRequest(evaluation_dataset, metric, save_directory),
        )
        self.checkpoint = self.report = None
        self._provenance = Provenance(calibration=self.batches_from)
        if save_directory is not None:
            self.save_pretrained(save_directory)
        return self.int8_model

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Save `int8_model`, with captured graphs for its first calls, and the tokenizer.

        Raises `CheckpointError`, and then leaves nothing half-written.
        """
        from ..hub import OptimizedModel
        from .steps.programs import try_examples

        model = self._require_int8()
        try_examples(model, self.tokenizer)
        OptimizedModel.save_pretrained(model, save_directory, tokenizer=self.tokenizer)
        self.checkpoint = Path(save_directory)
        for name, content in self.extra_files().items():
            file = self.checkpoint / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        card_data.write(self.checkpoint, None, self._card_facts())

    def extra_files(self) -> dict[str, bytes]:
        """What is saved and published with the checkpoint, by name: the sensitivity report, where there is one."""
        return sensitivity_files(self.tuning)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
        card_info: CardInfo | None = None,
    ) -> Pushed:
        """Publish `int8_model` with its tokenizer and a model card, in one commit; the card shows `report`.

        Args:
            repo_id, private, revision, token, commit_message, create_pr: as `hub.push_folder` takes them.
            card_info: what else the card says; the base model, its licence, and the data when they are on the Hub, are
                found out when not given.

        Raises:
            ConfigError: nothing was quantized yet, or `create_pr` together with another branch than the main one.
            CheckpointError: the Hub refuses; nothing is left half-published.
        """
        model = self._require_int8()
        return push_to_hub(
            model,
            repo_id,
            tokenizer=self.tokenizer,
            report=self.report,
            files=self.extra_files(),
            # Not left to the INT8 model, which has the name of its own repository when `load_int8` loaded it.
            card_info=card_data.complete(self._card_facts(card_info or CardInfo()), self.model.name_or_path, token),
            private=private,
            revision=revision,
            token=token,
            commit_message=commit_message,
            create_pr=create_pr,
        )

    def load_int8(self, name_or_path: str | Path, **kwargs: Any) -> PreTrainedModel:
        """Take an INT8 model that was saved before as `int8_model`, to evaluate it against `model`.

        Raises:
            ConfigError: it is not an INT8 model, or not of the class of `model`.
            CheckpointError: it cannot be read.
        """
        model = loading.load_int8_model(name_or_path, type(self.model).__name__, **kwargs)
        self.int8_model = model
        self.report = self.tuning = None
        self._provenance = Provenance()
        self.checkpoint = Path(name_or_path) if Path(name_or_path).is_dir() else None
        return model

    def evaluate(
        self,
        dataset: Data,
        *,
        metric: str | evaluate.EvaluationModule | None = None,
        batch_size: int = 8,
        latency_rounds: int = 20,
    ) -> EvaluationReport:
        """Measure FP32 and INT8 on the same examples, in one run.

        Args:
            dataset: whatever `evaluation.data.load_dataset` takes; of several splits, the validation one.
            metric: a name in `evaluation.METRICS` or an `EvaluationModule`; None takes the task's.
            batch_size: examples per batch for the metric. Latency is that of single examples.
            latency_rounds: timed calls of each model.

        Raises:
            ConfigError: nothing was quantized yet, no tokenizer, an unknown metric, or no task to evaluate.
            DataError: the dataset is empty, lacks a column, or has labels that the model does not have.
        """
        from ..evaluation.metrics import compute_metric, load_metric

        models = {"fp32": self.model, "int8": self._require_int8()}
        # Not `metric or ...`: an EvaluationModule has a length, which is 0.
        module = load_metric(self.metric if metric is None else metric)
        data = load_dataset(dataset)
        references = self.references(data)
        features = self.preprocess(data)
        values = {}
        for name, model in models.items():
            predictions = self.predictions(model, features, batch_size, f"evaluating {name.upper()}")
            metric_name, values[name] = compute_metric(module, predictions, references)
        report = EvaluationReport.build(
            metric_name,
            values,
            {"fp32": fp32_size(self.model), "int8": self._int8_size()},
            self._times(features, latency_rounds),
            describe_machine(),
            greater_is_better=self.greater_is_better,
        )
        self.report = report
        self._provenance = replace(self._provenance, evaluation=DataSource.of(data))
        card_data.add(self.checkpoint, report.to_dict(), self._card_facts())
        return report

    def latency(self, features: Sequence[Features], *, rounds: int) -> dict[str, float]:
        """Median milliseconds of both models for one example, called in turns; examples of all lengths take part."""
        return self._times(features, rounds).medians()

    def _times(self, features: Sequence[Features], rounds: int) -> PairedLatency:
        """The times of `latency`. Each example takes several turns, which tell how steady the machine is."""
        by_length = sorted(features, key=feature_length)
        lengths = min(len(by_length), max(_TIMED_EXAMPLES, rounds // 4))
        chosen = [by_length[(2 * i + 1) * len(by_length) // (2 * lengths)] for i in range(lengths)]
        batches = [self.collate([f]) for f in chosen]

        def caller(model: PreTrainedModel) -> Callable[[], Any]:
            turn = itertools.cycle(batches)  # each model has its own, so both meet the same example in a round
            return lambda: self.forward(model, next(turn))

        calls = {"fp32": caller(self.model), "int8": caller(self._require_int8())}
        with torch.inference_mode():
            return paired_latency(calls, rounds=rounds, warmup=max(3, lengths), cases=lengths, description="latency")

    def _card_facts(self, told: CardInfo | None = None) -> CardInfo:
        return card_facts(self.model.name_or_path, self._provenance, told)

    def _require_int8(self) -> PreTrainedModel:
        if self.int8_model is None:
            raise ConfigError("there is no INT8 model yet; call quantize(...) or load_int8(...) first")
        return self.int8_model

    def _int8_size(self) -> int:
        return checkpoint_size(self.checkpoint) if self.checkpoint else stored_size(self._require_int8())
