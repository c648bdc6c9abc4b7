"""Translation: a text to the same in another language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DataError
from ..steps.batching import Features
from .text_to_text import TextColumns, TextToTextQuantizer

if TYPE_CHECKING:
    import datasets


class TranslationQuantizer(TextToTextQuantizer):
    """Quantizes models that translate (Marian, mBART, M2M100, T5); the metric is sacreBLEU.

    Datasets have a column of sources and one of translations (`text_column="en", label_column="de"`), or the Hub's column
    `translation`, whose entries hold a text per language; `text_column` and `label_column` then name languages.

    Args:
        src_lang, tgt_lang: languages of a model that knows several, by the codes of its tokenizer (`"en_XX"`, `"ro_RO"` of mBART).

    Example:
        >>> quantizer = TranslationQuantizer.from_pretrained("my-en-de")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="dynamic"), save_directory="my-int8")  # doctest: +SKIP
        >>> quantizer.predict("A dog runs.")[0]["translation_text"]  # doctest: +SKIP
        'Ein Hund rennt.'
    """

    task = "translation"
    head = ("MTModel", "ForConditionalGeneration")
    answer_key = "translation_text"
    column_pairs = (
        TextColumns("source", "target"),
        TextColumns("src", "tgt"),
        TextColumns("source", "translation"),
        TextColumns("text", "translation"),
    )

    own_options = (*TextToTextQuantizer.own_options, "src_lang", "tgt_lang")

    def __init__(
        self, *arguments: Any, src_lang: str | None = None, tgt_lang: str | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        if src_lang is not None:
            self._choose("src_lang", src_lang)
        if tgt_lang is not None:
            self.generation.setdefault("forced_bos_token_id", self._choose("tgt_lang", tgt_lang))

    def settings_names(self) -> tuple[str, ...]:
        """T5 has settings per pair of languages."""
        return (f"translation_{self.text_column}_to_{self.label_column}", self.task)

    @property
    def metric(self) -> str:
        """`"sacrebleu"`."""
        return "sacrebleu"

    def preprocess(self, dataset: datasets.Dataset) -> list[Features]:
        """Tokens of sources and translations."""
        return super().preprocess(self._flat(dataset))

    def references(self, dataset: datasets.Dataset) -> list[list[str]]:
        """The right translations of each example."""
        return super().references(self._flat(dataset))

    def _choose(self, side: str, language: str) -> int:
        """Set a language of the tokenizer; returns its token. Raises `ConfigError` for one it does not have."""
        tokenizer = self.require_tokenizer()
        if not hasattr(tokenizer, side):
            raise ConfigError(
                f"{side} is {language!r}, but a {type(tokenizer).__name__} has no languages; leave it out"
            )
        code = tokenizer.get_lang_token(language) if hasattr(tokenizer, "get_lang_token") else language
        token = tokenizer.get_vocab().get(code)
        if token is None:
            raise ConfigError(
                f"{side} is {language!r}, which is no language of the tokenizer; expected a code such as en_XX"
            )
        setattr(tokenizer, side, language)
        return token

    def _flat(self, dataset: datasets.Dataset) -> datasets.Dataset:
        """The column `translation` as one column per language."""
        if dataset.column_names != ["translation"] or not isinstance(dataset[0]["translation"], dict):
            return dataset
        if not self.text_column or not self.label_column:
            raise DataError(
                f"the dataset holds the languages {', '.join(dataset[0]['translation'])}; pass text_column=... (to translate "
                f"from) and label_column=... (into)"
            )
        rows = dataset["translation"]
        return type(dataset).from_dict({name: [row[name] for row in rows] for name in rows[0]})
