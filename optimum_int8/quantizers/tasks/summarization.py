"""Summarization: a long text to a short one."""

from __future__ import annotations

from .text_to_text import TextColumns, TextToTextQuantizer


class SummarizationQuantizer(TextToTextQuantizer):
    """Quantizes `...ForConditionalGeneration` models (BART, T5, Pegasus); the metric is ROUGE-L.

    Datasets have a column of texts and one of summaries; a list of summaries counts as several references.

    Example:
        >>> quantizer = SummarizationQuantizer.from_pretrained("my-summarizer")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="dynamic"), save_directory="my-int8")  # doctest: +SKIP
        >>> quantizer.predict("A long text ...")[0]["summary_text"]  # doctest: +SKIP
    """

    task = "summarization"
    head = "ForConditionalGeneration"
    answer_key = "summary_text"
    column_pairs = (
        TextColumns("dialogue", "summary"),
        TextColumns("document", "summary"),
        TextColumns("article", "highlights"),
        TextColumns("text", "summary"),
        TextColumns("source", "target"),
    )

    @property
    def metric(self) -> str:
        """`"rouge"`, of which ROUGE-L is shown."""
        return "rouge"
