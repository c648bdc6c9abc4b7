"""Datasets with one tag per word: find the columns, turn the tags into the names that the model uses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .columns import require_column

if TYPE_CHECKING:
    import datasets

WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "tags", "labels", "ner", "pos_tags", "upos", "chunk_tags", "ner_labels")


def word_column(dataset: datasets.Dataset, wanted: str | None = None) -> str:
    """The column with lists of words. Raises `DataError` when there is none."""
    return _find(dataset, wanted, WORD_COLUMNS, "word", "text_column")


def tag_column(dataset: datasets.Dataset, wanted: str | None = None) -> str:
    """The column with lists of tags. Raises `DataError` when there is none."""
    return _find(dataset, wanted, TAG_COLUMNS, "tag", "label_column")


def word_lists(dataset: datasets.Dataset, name: str) -> list[list[str]]:
    """A column of word lists. Raises `DataError` at the first row that is not one, or is empty."""
    rows = list(dataset[name])
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or not row or not all(isinstance(word, str) for word in row):
            raise DataError(f"row {number} of column {name!r} is not a list of words; expected one word per tag")
    return rows


def tag_lists(
    dataset: datasets.Dataset, name: str, words: list[list[str]], id2label: Mapping[int, str]
) -> list[list[str]]:
    """A column of tag lists, as the model's names of the tags.

    Names are matched without regard to case. Numbers of a `ClassLabel` stand for its names, unless the model has only
    `LABEL_0`, `LABEL_1`, ...; other numbers are the model's.

    Args:
        words: `word_lists` of the same rows.
        id2label: `model.config.id2label`.

    Raises:
        DataError: a tag that the model does not have, or another number of tags than words.
    """
    from .extra import datasets

    feature = getattr(dataset.features[name], "feature", None)
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    if names and all(re.fullmatch(r"LABEL_[0-9]+", label) for label in id2label.values()):
        names = None
    by_name = {label.casefold(): label for label in id2label.values()}
    result = []
    for number, (row, tokens) in enumerate(zip(dataset[name], words, strict=True), start=1):
        if not isinstance(row, list) or len(row) != len(tokens):
            found = f"{len(row)} tags" if isinstance(row, list) else "no list of tags"
            raise DataError(
                f"row {number} of column {name!r} has {found}; expected one for each of {len(tokens)} words"
            )
        result.append([_label(tag, number, name, names, by_name, id2label) for tag in row])
    return result


def _label(
    tag: Any, row: int, column: str, names: list[str] | None, by_name: Mapping[str, str], id2label: Mapping[int, str]
) -> str:
    if isinstance(tag, int) and names is not None and 0 <= tag < len(names):
        tag = names[tag]
    if isinstance(tag, str) and tag.strip().casefold() in by_name:
        return by_name[tag.strip().casefold()]
    if isinstance(tag, int) and names is None and tag in id2label:
        return id2label[tag]
    known = ", ".join(list(id2label.values())[:8]) + (", ..." if len(id2label) > 8 else "")
    raise DataError(
        f"row {row} of column {column!r} has the tag {tag!r}; the model has the {len(id2label)} tags {known}"
    )


def _find(dataset: datasets.Dataset, wanted: str | None, usual: tuple[str, ...], role: str, option: str) -> str:
    if wanted:
        return require_column(dataset, wanted, role)
    for name in usual:
        if name in dataset.column_names:
            return name
    raise DataError(
        f"no {role} column among {', '.join(dataset.column_names) or 'no columns at all'}; "
        f"expected one of {', '.join(usual)}, or name it ({option}=...)"
    )
