"""Translation: a text to the same in another language."""

from __future__ import annotations

import datasets

from ..errors import DataError
from .batching import Features
from .text_to_text import TextToTextQuantizer


class TranslationQuantizer(TextToTextQuantizer):
    """Quantizes models that translate (Marian, mBART, M2M100, T5); the metric is sacreBLEU.

    Datasets have a column of sources and one of translations (`text_column="en", label_column="de"`), or the Hub's column
    `translation`, whose entries hold a text per language; `text_column` and `label_column` then name languages.

    Example:
        >>> quantizer = TranslationQuantizer.from_pretrained("my-en-de")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="dynamic"), save_directory="my-int8")  # doctest: +SKIP
        >>> quantizer.predict("A dog runs.")[0]["translation_text"]  # doctest: +SKIP
        'Ein Hund rennt.'
    """

    task = "translation"
    head = ("MTModel", "ForConditionalGeneration")
    answer_key = "translation_text"
    column_pairs = (("source", "target"), ("src", "tgt"), ("source", "translation"), ("text", "translation"))

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
        return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]})
