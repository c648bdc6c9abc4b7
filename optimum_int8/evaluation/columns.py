"""Find the text and label columns of a dataset, and turn labels into the class numbers of a model."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DataError

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
"""Columns of sentence pairs, as GLUE and similar datasets call them."""

TEXT_COLUMNS = ("sentence", "text", "review", "content", "comment", "tweet", "document", "question", "title")
LABEL_COLUMNS = ("label", "labels", "score", "sentiment", "class", "target", "category", "stars")


def text_columns(dataset: datasets.Dataset, wanted: str | Sequence[str] | None = None) -> tuple[str, ...]:
    """The column with the sentence, or the two with a sentence pair.

    Args:
        wanted: the user's choice: one name, or two (a sequence, or one string with a comma).

    Raises:
        DataError: a wanted column is missing; or none was named and none of the usual names is there.
    """
    if wanted:
        names = tuple(wanted.split(",")) if isinstance(wanted, str) else tuple(wanted)
        if not 1 <= len(names) <= 2:
            raise DataError(f"{len(names)} text columns given ({', '.join(names)}); expected one, or two for pairs")
        return tuple(require_column(dataset, name.strip(), "text") for name in names)
    for pair in PAIR_COLUMNS:
        if set(pair) <= set(dataset.column_names):
            return pair
    for name in TEXT_COLUMNS:
        if name in dataset.column_names:
            return (name,)
    strings = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) == "string"]
    strings = [name for name in strings if name not in LABEL_COLUMNS]
    if len(strings) == 1:
        return (strings[0],)
    raise DataError(
        f"cannot tell the text column among {listed(dataset)}; name it (text_column=..., --text-column), "
        f"two names for sentence pairs"
    )


def label_column(dataset: datasets.Dataset, wanted: str | None = None) -> str:
    """The column with the label. Raises `DataError` when the wanted one, or every usual one, is missing."""
    found = usual_column(dataset, wanted, LABEL_COLUMNS, "label")
    if found is not None:
        return found
    raise DataError(
        f"no label column among {listed(dataset)}; expected one of {', '.join(LABEL_COLUMNS)}, "
        f"or name it (label_column=..., --label-column)"
    )


def usual_column(dataset: datasets.Dataset, wanted: str | None, usual: Sequence[str], role: str) -> str | None:
    """The wanted column, else the first of the usual names that is there. Raises `DataError` when the wanted one is missing."""
    if wanted:
        return require_column(dataset, wanted, role)
    return next((name for name in usual if name in dataset.column_names), None)


def require_column(dataset: datasets.Dataset, name: str, role: str) -> str:
    """`name`, if the dataset has it. Raises `DataError` with the columns that it has."""
    if name not in dataset.column_names:
        raise DataError(f"no {role} column {name!r}; the dataset has {listed(dataset)}")
    return name


def texts(dataset: datasets.Dataset, name: str) -> list[str]:
    """A column as strings. Raises `DataError` at the first row that has none."""
    values = list(dataset[name])
    for row, value in enumerate(values):
        if value is None or isinstance(value, (list, dict)):
            raise DataError(f"row {row + 1} of column {name!r} holds {_short(value)}; expected a text")
    return [value if isinstance(value, str) else str(value) for value in values]


def class_labels(dataset: datasets.Dataset, name: str, id2label: Mapping[int, str]) -> list[int]:
    """A label column as the class numbers of the model.

    Names are matched without regard to case, so a dataset whose classes stand in another order than the model's still
    gets the model's numbers (MNLI's do, in many models). Numbers are taken as they are. So are the numbers of a
    `ClassLabel` column whose names are not the model's: silently when the model has only `LABEL_0`, `LABEL_1`, ...,
    with a warning when it has names of its own.

    Args:
        id2label: `model.config.id2label`.

    Raises:
        DataError: a label that is missing, that the model does not have, or -1 (an unlabelled test split).
    """
    from .extra import datasets

    values = list(dataset[name])
    feature = dataset.features[name]
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    if names is not None and match_by_name(names, id2label):
        values = [v if v is None or v < 0 else names[v] for v in values]
    elif names is not None and len(names) > len(id2label):
        raise DataError(
            f"column {name!r} has the {len(names)} classes {', '.join(names)}; the model has {_classes(id2label)}"
        )
    elif names is not None and not all(re.fullmatch(r"LABEL_[0-9]+", label) for label in id2label.values()):
        ours = ", ".join(names)
        theirs = _classes(id2label)
        logger.warning("the classes of %r are called %s; the model has %s: matched by number", name, ours, theirs)
    by_name = {label.casefold(): int(number) for number, label in id2label.items()}
    return [class_number(value, row, name, by_name, id2label) for row, value in enumerate(values)]


def score_labels(dataset: datasets.Dataset, name: str) -> list[float]:
    """A label column as finite numbers, for regression. Raises `DataError` at the first row that has none."""
    values = []
    for row, value in enumerate(dataset[name]):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise DataError(f"row {row + 1} of column {name!r} holds {_short(value)}; the model predicts a number")
        values.append(float(value))
    return values


def match_by_name(names: Sequence[str], id2label: Mapping[int, str]) -> bool:
    """Whether the model has each of these classes, case aside."""
    known = {label.casefold() for label in id2label.values()}
    return all(label.casefold() in known for label in names)


def class_number(value: Any, row: int, column: str, by_name: Mapping[str, int], id2label: Mapping[int, str]) -> int:
    """A label as a class number. Raises `DataError`, with its row, for one that the model does not have."""
    if isinstance(value, str):
        text = value.strip()
        if text.casefold() in by_name:
            return by_name[text.casefold()]
        value = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else value
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    where = f"row {row + 1} of column {column!r}"
    if value == -1:
        raise DataError(f"{where} is -1, which marks a split without labels; use one that has them (validation)")
    if not isinstance(value, int) or not 0 <= value < len(id2label):
        raise DataError(f"{where} holds {_short(value)}; the model has {_classes(id2label)}")
    return int(value)


def _classes(id2label: Mapping[int, str]) -> str:
    shown = ", ".join(f"{number}={label}" for number, label in list(id2label.items())[:8])
    return f"the {len(id2label)} classes {shown}" + (", ..." if len(id2label) > 8 else "")


def listed(dataset: datasets.Dataset) -> str:
    """The columns of a dataset, for a message."""
    return ", ".join(dataset.column_names) or "no columns at all"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
