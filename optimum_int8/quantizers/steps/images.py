"""Images, as datasets and callers give them, opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...errors import DataError
from ...evaluation.images import ImageRow, open_image
from .batching import Features


class ImageSize(NamedTuple):
    """Pixels of an image."""

    height: int
    width: int


def opened(features: Sequence[Features]) -> list[Any]:
    """The images of a batch, in RGB. Raises `DataError` for one that cannot be read."""
    return [f["image"].open() if isinstance(f["image"], ImageRow) else f["image"] for f in features]


def given_images(inputs: Any) -> list[Features]:
    """What `predict` was given: an image of Pillow or the path of one, or several. Raises `DataError` for no or no such image."""
    items = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not items:
        raise DataError("0 inputs given; expected at least one image")
    return [{"image": open_image(item, f"input {number}")} for number, item in enumerate(items, 1)]
