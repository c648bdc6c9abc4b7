"""Token classification: a tag for every word (named entities, parts of speech)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, TokenClassificationPipeline

from ...errors import ConfigError
from ...evaluation.tags import tag_column, tag_lists, word_column, word_lists
from ..base import Quantizer
from ..steps.batching import IGNORED, Batch, Features, run_batches, without
from ..steps.inputs import model_input_columns, tokenize_words

if TYPE_CHECKING:
    import datasets


class TokenClassificationQuantizer(Quantizer):
    """Quantizes `...ForTokenClassification` models; the metric is the F1 of entities (seqeval).

    Datasets have a column of word lists and one of tag lists: names, or numbers. Files in CoNLL columns are read too.
    A word has the tag of its first token. Words beyond `max_length` count as tagged `O`.

    Example:
        >>> quantizer = TokenClassificationQuantizer.from_pretrained("my-tagger")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="static"), "train.conll", "my-int8")  # doctest: +SKIP
        >>> quantizer.evaluate("dev.conll").metric  # doctest: +SKIP
        'f1'
    """

    task = "token-classification"
    head = "ForTokenClassification"
    auto_class = "AutoModelForTokenClassification"

    @property
    def metric(self) -> str:
        """`"seqeval"`, or `"token_accuracy"` for a model whose tags do not mark entities."""
        tags = self.model.config.id2label.values()
        return "seqeval" if any(tag[:2] in ("B-", "I-") for tag in tags) else "token_accuracy"

    def preprocess(self, dataset: datasets.Dataset) -> list[Features]:
        """Token lists, each with `words`, the word of every token; or the model's inputs that the dataset has."""
        if model_input_columns(self.model, dataset):
            return super().preprocess(dataset)
        words = word_lists(dataset, word_column(dataset, self._word_column()))
        return tokenize_words(self.require_tokenizer(), words, self.max_length, self.model.config)

    def collate(self, features: Sequence[Features]) -> Batch:
        """Padded batch of the model's inputs."""
        return super().collate(without(features, "words", "word_count"))

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """Tag names, one list per sentence. Raises `DataError` for tags that the model does not have."""
        words = word_lists(dataset, word_column(dataset, self._word_column()))
        return tag_lists(dataset, tag_column(dataset, self.label_column), words, self.model.config.id2label)

    def training_features(self, dataset: datasets.Dataset) -> list[Features]:
        """Token lists with `labels`: the number of its word's tag for the first token of each word, -100 elsewhere."""
        if model_input_columns(self.model, dataset):
            return super().training_features(dataset)
        numbers = {name: number for number, name in self.model.config.id2label.items()}
        pairs = zip(self.preprocess(dataset), self.references(dataset), strict=True)
        return [{**example, "labels": self._token_labels(example, tags, numbers)} for example, tags in pairs]

    def predictions(
        self, model: PreTrainedModel, features: Sequence[Features], batch_size: int, description: str
    ) -> list[Any]:
        """Tag names of every word, one list per sentence."""

        def forward(batch: Batch) -> Sequence[Any]:
            return self.forward(model, batch).logits.argmax(dim=-1).tolist()

        rows = run_batches(features, self.collate, forward, batch_size=batch_size, description=description)
        return [self._word_tags(example, row) for example, row in zip(features, rows, strict=True)]

    def predict(
        self, inputs: str | Sequence[str], *, aggregation_strategy: str = "simple", int8: bool = True, **kwargs: Any
    ) -> list[Any]:
        """Entities of plain texts, as `pipeline("token-classification")` gives them; a list per text.

        Args:
            aggregation_strategy: how tokens become entities: `"none"`, `"simple"`, `"first"`, `"average"`, `"max"`.
            int8: use the INT8 model; False uses the FP32 one.
            kwargs: further arguments of the pipeline, as `stride`.

        Raises:
            ConfigError: `int8` before anything was quantized.
        """
        model = self._require_int8() if int8 else self.model
        pipe = TokenClassificationPipeline(
            model=model, tokenizer=self.require_tokenizer(), aggregation_strategy=aggregation_strategy, **kwargs
        )
        return pipe([inputs] if isinstance(inputs, str) else list(inputs))

    def _word_column(self) -> str | None:
        if self.text_column is None or isinstance(self.text_column, str):
            return self.text_column
        raise ConfigError(f"text_column is {self.text_column!r}; expected the name of one column of word lists")

    def _token_labels(self, example: Features, tags: Sequence[str], numbers: dict[str, int]) -> list[int]:
        words = example["words"]
        first = [word is not None and word not in words[:i] for i, word in enumerate(words)]
        return [numbers[tags[word]] if new else IGNORED for word, new in zip(words, first, strict=True)]

    def _word_tags(self, example: Features, row: Sequence[int]) -> list[str]:
        names = self.model.config.id2label
        start = len(row) - len(example["input_ids"]) if self.require_tokenizer().padding_side == "left" else 0
        tags = ["O" if "O" in names.values() else names[0]] * example["word_count"]
        # Backwards, so that the first token of a word has the last say.
        for position, word in reversed(list(enumerate(example["words"]))):
            if word is not None:
                tags[word] = names[row[start + position]]
        return tags
