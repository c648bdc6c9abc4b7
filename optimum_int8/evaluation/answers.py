"""Datasets of questions about texts: the columns, and the answers that count as right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError
from .columns import require_column, texts

if TYPE_CHECKING:
    import datasets

ANSWER_COLUMNS = ("answers", "answer")


class Questions(NamedTuple):
    """Questions, and as many texts that answer them."""

    questions: list[str]
    contexts: list[str]


def questions_and_contexts(dataset: datasets.Dataset, wanted: tuple[str, ...] | None = None) -> Questions:
    """The columns `question` and `context`, or the two that are wanted.

    Raises:
        DataError: a column is missing, or holds something else than texts.
    """
    names = wanted or ("question", "context")
    if len(names) != 2:
        raise DataError(f"{len(names)} text columns given ({', '.join(names)}); expected those of question and context")
    question, context = names
    return Questions(
        texts(dataset, require_column(dataset, question, "question")),
        texts(dataset, require_column(dataset, context, "context")),
    )


def accepted_answers(dataset: datasets.Dataset, wanted: str | None = None) -> list[list[str]]:
    """The accepted answers of each question; none for a question that the text does not answer (SQuAD 2).

    A row holds SQuAD's `{"text": [...], "answer_start": [...]}`, a list of `{"text": ...}`, a list of texts, or a text.

    Raises:
        DataError: no such column, or a row of another shape.
    """
    name = next((name for name in ANSWER_COLUMNS if name in dataset.column_names), None)
    if wanted:
        name = require_column(dataset, wanted, "answer")
    if name is None:
        found = ", ".join(dataset.column_names) or "no columns at all"
        raise DataError(f"no answer column among {found}; expected answers, or name it (label_column=...)")
    return [_accepted(value, row, name) for row, value in enumerate(dataset[name], start=1)]


def has_answers(dataset: datasets.Dataset, wanted: str | None = None) -> bool:
    """Whether there is a column of answers at all."""
    return wanted is not None or any(name in dataset.column_names for name in ANSWER_COLUMNS)


def _accepted(value: Any, row: int, name: str) -> list[str]:
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        found: list[Any] = [item.get("text") if isinstance(item, dict) else item for item in value]
        if all(isinstance(item, str) for item in found):
            return list(dict.fromkeys(found))
    raise DataError(f"row {row} of column {name!r} holds {str(value)[:40]!r}; expected the texts of the answers")
