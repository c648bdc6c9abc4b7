"""Datasets of a text and several endings of it, with the number of the right one: SWAG and the like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError
from .columns import require_column, texts

if TYPE_CHECKING:
    import datasets

CONTEXT_COLUMNS = ("startphrase", "ctx", "context", "premise", "question", "prompt", "sent1", "sentence")
CHOICE_COLUMNS = ("choices", "endings", "options")
LABEL_COLUMNS = ("label", "answer", "answerKey", "labels")


class Choices(NamedTuple):
    """Per row as many contexts, all equal, as choices: the first and second texts of its pairs."""

    contexts: list[list[str]]
    choices: list[list[str]]


def contexts_and_choices(dataset: datasets.Dataset, wanted: str | None = None) -> Choices:
    """First and second texts of each row's pairs, one pair per choice.

    The endings are columns `ending0`, `ending1`, ... (or `choice0`, `choice1`, ...), with SWAG's `sent2` as their
    beginning if it is there; or one column `choices`, `endings` or `options` of lists.

    Args:
        wanted: the column of the context.

    Raises:
        DataError: a column is missing, a row has fewer than two choices, or rows differ in their number.
    """
    numbered = _numbered(dataset)
    if numbered and "sent1" in dataset.column_names and not wanted:
        firsts = texts(dataset, "sent1")
        starts = texts(dataset, "sent2") if "sent2" in dataset.column_names else [""] * len(firsts)
        rows = zip(starts, *(texts(dataset, name) for name in numbered), strict=True)
        return _paired(firsts, [[f"{start} {ending}".strip() for ending in endings] for start, *endings in rows])
    name = wanted or next((name for name in CONTEXT_COLUMNS if name in dataset.column_names), None)
    if name is None:
        raise DataError(f"no context column among {_listed(dataset)}; expected one of {', '.join(CONTEXT_COLUMNS)}")
    firsts = texts(dataset, require_column(dataset, name, "context"))
    if numbered:
        columns = [texts(dataset, column) for column in numbered]
        return _paired(firsts, [list(row) for row in zip(*columns, strict=True)])
    column = next((name for name in CHOICE_COLUMNS if name in dataset.column_names), None)
    if column is None:
        raise DataError(f"no choices among {_listed(dataset)}; expected choices, endings, options or ending0, ending1")
    return _paired(firsts, [_choices(value, row, column) for row, value in enumerate(dataset[column], start=1)])


def right_choices(dataset: datasets.Dataset, number: int, wanted: str | None = None) -> list[int]:
    """The index of the right choice per row, from a number, its text, or a letter (`A` is 0).

    Args:
        number: choices per row.

    Raises:
        DataError: no such column, or a row that names no choice.
    """
    name = next((name for name in LABEL_COLUMNS if name in dataset.column_names), None)
    if wanted:
        name = require_column(dataset, wanted, "label")
    if name is None:
        raise DataError(f"no label column among {_listed(dataset)}; expected one of {', '.join(LABEL_COLUMNS)}")
    labels = []
    for row, value in enumerate(dataset[name], start=1):
        label = value
        if isinstance(value, str) and re.fullmatch(r"[A-Z]", value):
            label = ord(value) - ord("A")
        elif isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}", value):
            label = int(value)
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < number:
            raise DataError(f"row {row} of column {name!r} holds {value!r}; expected one of {number} choices, from 0")
        labels.append(label)
    return labels


def _numbered(dataset: datasets.Dataset) -> list[str]:
    for stem in ("ending", "choice"):
        found = [name for name in dataset.column_names if re.fullmatch(stem + "[0-9]+", name)]
        if len(found) > 1:
            return sorted(found, key=lambda name: int(name[len(stem) :]))
    return []


def _choices(value: Any, row: int, column: str) -> list[str]:
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # ARC and CommonsenseQA
        value = value["text"]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"row {row} of column {column!r} holds {str(value)[:40]!r}; expected a list of texts")
    return value


def _paired(firsts: list[str], choices: list[list[str]]) -> Choices:
    number = len(choices[0]) if choices else 2
    for row, texts_of_row in enumerate(choices, start=1):
        if len(texts_of_row) != number or number < 2:
            raise DataError(
                f"row {row} has {len(texts_of_row)} choices and the first row {number}; "
                f"expected the same number, at least 2, in each"
            )
    return Choices([[first] * number for first in firsts], choices)


def _listed(dataset: datasets.Dataset) -> str:
    return ", ".join(dataset.column_names) or "no columns at all"
