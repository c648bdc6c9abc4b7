"""What summarization and translation share: a text goes in, the model generates another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from transformers import PreTrainedModel

from ...errors import DataError
from ...evaluation.columns import require_column
from ..base import Quantizer
from ..steps.batching import IGNORED, Batch, Features, run_batches, without
from ..steps.generation_settings import USUAL_NEW_TOKENS, check_length, positions, task_settings, with_length
from ..steps.inputs import length_limit
from ..steps.task import Data

if TYPE_CHECKING:
    import datasets


class TextColumns(NamedTuple):
    """Names of a dataset's columns; no targets is fine for calibration."""

    source: str
    target: str | None


class TextToTextQuantizer(Quantizer):
    """Base of the quantizers of encoder-decoders that generate. Calibration is taught on the targets of the dataset; without them
    the model's own texts serve.

    Args:
        text_column, label_column: of sources and targets; None finds them by their usual names.
        prefix: put before each source (T5's `"summarize: "`); None takes what the model's configuration says for the task.
        max_new_tokens: longest text to generate; None takes the model's own length, or else 128 or as many as it has positions for.
        generation: further arguments of `generate`, such as `{"num_beams": 4}`; the default are the model's own, those that its
            configuration has for the task (T5) included.
    """

    auto_class = "AutoModelForSeq2SeqLM"
    own_options: ClassVar[tuple[str, ...]] = ("prefix", "max_new_tokens", "generation")
    column_pairs: ClassVar[tuple[TextColumns, ...]] = ()
    """Usual names of sources and targets."""
    answer_key: ClassVar[str] = "generated_text"
    """What the pipeline of this task called its text."""

    def __init__(
        self,
        *arguments: Any,
        prefix: str | None = None,
        max_new_tokens: int | None = None,
        generation: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        usual = task_settings(self.model.config, *self.settings_names())
        own_prefix = usual.pop("prefix", "")
        self.prefix = own_prefix if prefix is None else prefix
        self.generation = {**with_length(self.model, usual, max_new_tokens), **(generation or {})}
        check_length(self.model.config, self.generation)

    def settings_names(self) -> tuple[str, ...]:
        """Under which names the model's configuration may have settings for this task, best first."""
        return (self.task,)

    def preprocess(self, dataset: datasets.Dataset) -> list[Features]:
        """Tokens of each source and, where the dataset has targets, those of the first target as `labels`."""
        source, target = self._columns(dataset)
        features = self._sources([_joined(value, source) for value in dataset[source]])
        if target is None:
            return features
        targets = [right[0] for right in self._targets(dataset, target)]
        tokenizer = self.require_tokenizer()
        length = length_limit(tokenizer, self.max_length, self.model.config)
        labels = tokenizer(text_target=targets, truncation=length is not None, max_length=length)["input_ids"]
        return [{**example, "labels": tokens} for example, tokens in zip(features, labels, strict=True)]

    def collate(self, features: Sequence[Features]) -> Batch:
        """Padded batch; the padding of labels is -100."""
        batch = super().collate(without(features, "labels"))
        if "labels" in features[0]:
            rows = [torch.as_tensor(example["labels"]) for example in features]
            batch["labels"] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)
        return batch

    def calibration_batches(self, dataset: Data | Iterable[Any], batch_size: int) -> Iterable[Any]:
        """Batches with labels, or with what the FP32 model generates where there are none."""
        from ...calibration import generation_batches

        for batch in super().calibration_batches(dataset, batch_size):
            ready = not isinstance(batch, dict) or any(name in batch for name in ("labels", "decoder_input_ids"))
            tokens = self.generation.get("max_new_tokens") or min(USUAL_NEW_TOKENS, positions(self.model.config))
            yield from [batch] if ready else generation_batches(self.model, [batch], tokens)

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """The right texts of each example, one or several. Raises `DataError` for a dataset without targets."""
        _, target = self._columns(dataset)
        if target is None:
            raise DataError(
                f"the dataset has no targets, only {', '.join(dataset.column_names)}; pass label_column=..."
            )
        return self._targets(dataset, target)

    def forward(self, model: PreTrainedModel, batch: Batch) -> Any:
        """Generated tokens `[batch, steps]`."""
        inputs = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
        return model.generate(**inputs, **self.generation)

    def postprocess(self, outputs: Any) -> Sequence[Any]:
        """Texts of generated tokens."""
        texts = self.require_tokenizer().batch_decode(outputs, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def predict(
        self, inputs: str | Sequence[str], *, batch_size: int = 8, int8: bool = True, **generation: Any
    ) -> list[dict[str, str]]:
        """Generated texts, as the pipeline gave them that Transformers 5 removed.

        Args:
            inputs: a text or several.
            int8: use the INT8 model; False uses the FP32 one.
            generation: arguments of `generate` for this call.

        Raises:
            ConfigError: `int8` before anything was quantized, or a text to generate that is longer than the model's positions.
            DataError: no texts, or an empty one.
        """
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(f"{len(texts)} inputs given; expected at least one text, and none empty")
        model = self._require_int8() if int8 else self.model
        settings = {**self.generation, **generation}
        check_length(self.model.config, settings)

        def forward(batch: Batch) -> Sequence[Any]:
            return self.postprocess(model.generate(**batch, **settings))

        found = run_batches(
            self._sources(texts), self.collate, forward, batch_size=batch_size, description="generating"
        )
        return [{self.answer_key: text} for text in found]

    def _sources(self, texts: Sequence[str]) -> list[Features]:
        features = self.tokenize([[self.prefix + text for text in texts]])
        return [{name: example[name] for name in ("input_ids", "attention_mask")} for example in features]

    def _columns(self, dataset: datasets.Dataset) -> TextColumns:
        """Names of sources and targets. Raises `DataError` where they cannot be told apart."""
        wanted = (
            self.text_column if self.text_column is None or isinstance(self.text_column, str) else self.text_column[0]
        )
        if wanted or self.label_column:
            if not wanted:
                raise DataError(f"label_column is {self.label_column!r} and text_column is missing; name both")
            target = require_column(dataset, self.label_column, "label") if self.label_column else None
            return TextColumns(require_column(dataset, wanted, "text"), target)
        names = dataset.column_names
        for usual in self.column_pairs:
            if usual.source in names and usual.target in names:
                return usual
        sources = [usual.source for usual in self.column_pairs if usual.source in names]
        if sources:
            return TextColumns(sources[0], None)
        if len(names) == 2:
            return TextColumns(*names)
        raise DataError(
            f"cannot tell sources and targets among the columns {', '.join(names) or '(none)'}; pass text_column=... and "
            f"label_column=..."
        )

    def _targets(self, dataset: datasets.Dataset, column: str) -> list[list[str]]:
        rows = [[value] if isinstance(value, str) else value for value in dataset[column]]
        for number, right in enumerate(rows):
            if not isinstance(right, list) or not right or not all(isinstance(text, str) for text in right):
                raise DataError(
                    f"row {number + 1} of column {column!r} holds {str(right)[:40]!r}; expected a text, or a list of texts"
                )
        return rows


def _joined(value: Any, column: str) -> str:
    """A source: a text, or a list of sentences."""
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        value = " ".join(value)
    if not isinstance(value, str):
        raise DataError(f"column {column!r} holds {str(value)[:40]!r}; expected texts")
    return value
