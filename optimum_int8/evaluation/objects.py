"""Objects in images: the column of boxes and classes of a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .columns import class_number, listed, match_by_name, usual_column

if TYPE_CHECKING:
    import datasets

OBJECT_COLUMNS = ("objects", "annotations", "labels")
BOX_KEYS = ("bbox", "boxes", "box", "bboxes")
CLASS_KEYS = ("category", "category_id", "categories", "label", "labels", "class")

Objects = dict[str, list[Any]]
"""Of one image: `boxes`, lists of left, top, right, bottom in pixels; `labels`, class numbers; of a prediction `scores` too."""


def object_column(dataset: datasets.Dataset, wanted: str | None = None) -> str:
    """The column with the objects. Raises `DataError` when the wanted one, or every usual one, is missing."""
    found = usual_column(dataset, wanted, OBJECT_COLUMNS, "object")
    if found is not None:
        return found
    raise DataError(
        f"no column of objects among {listed(dataset)}; expected one of "
        f"{', '.join(OBJECT_COLUMNS)} with boxes and categories, or name it (label_column=..., --label-column)"
    )


def object_lists(dataset: datasets.Dataset, name: str, id2label: Mapping[int, str]) -> list[Objects]:
    """A column of objects as the Hub's datasets have it: for each row a mapping of lists, or a list of mappings, with boxes `[left, top,
    width, height]` in pixels, as COCO has them, and categories, numbers or names.

    Raises:
        DataError: a row that is no such thing, a box that is none, a class that the model does not have, or no object at all.
    """
    names = _class_names(dataset.features[name])
    by_name = {label.casefold(): int(n) for n, label in id2label.items()}
    named = names is not None and match_by_name(names, id2label)
    if names is not None and not named and len(names) > len(id2label):
        raise DataError(
            f"column {name!r} has the {len(names)} classes {', '.join(names[:8])}; the model has {len(id2label)}"
        )
    found: list[Objects] = []
    for row, value in enumerate(dataset.select_columns([name])[name]):
        boxes, labels = _pairs(value, row, name)
        labels = [names[v] if named and isinstance(v, int) and 0 <= v < len(names) else v for v in labels]  # type: ignore
        numbers = [class_number(v, row, name, by_name, id2label) for v in labels]
        found.append({"boxes": [_corners(box, row, name) for box in boxes], "labels": numbers})
    if not any(objects["labels"] for objects in found):
        raise DataError(f"column {name!r} holds no object in {len(found)} rows; expected at least one to find")
    return found


def _class_names(feature: Any) -> list[str] | None:
    """Names of the classes, where the dataset has them."""
    from .extra import datasets

    feature = getattr(feature, "feature", feature)
    feature = feature[0] if isinstance(feature, list) else feature
    if not isinstance(feature, Mapping):
        return None
    label = next((feature[key] for key in CLASS_KEYS if key in feature), None)
    label = getattr(label, "feature", label[0] if isinstance(label, list) else label)
    return label.names if isinstance(label, datasets.ClassLabel) else None


def _pairs(value: Any, row: int, column: str) -> tuple[list[Any], list[Any]]:
    """Boxes and categories of a row."""
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        value = {key: [item.get(key) for item in value] for key in {k for item in value for k in item}} if value else {}
        if not value:
            return [], []
    keys = [
        next((k for k in known if isinstance(value, Mapping) and k in value), None) for known in (BOX_KEYS, CLASS_KEYS)
    ]
    lists = [value[key] if key else None for key in keys]
    if not all(isinstance(items, list) for items in lists) or len(lists[0]) != len(lists[1]):  # type: ignore[arg-type]
        raise DataError(
            f"row {row + 1} of column {column!r} holds {_short(value)}; expected boxes ({', '.join(BOX_KEYS)}) and as many "
            f"classes ({', '.join(CLASS_KEYS)})"
        )
    return lists[0], lists[1]  # type: ignore[return-value]


def _corners(box: Any, row: int, column: str) -> list[float]:
    numbers = list(box) if isinstance(box, (list, tuple)) else []
    plain = len(numbers) == 4 and all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers)
    if not plain or numbers[2] < 0 or numbers[3] < 0:
        raise DataError(
            f"row {row + 1} of column {column!r} has the box {_short(box)}; expected left, top, width, height"
        )
    left, top, width, height = map(float, numbers)
    return [left, top, left + width, top + height]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
