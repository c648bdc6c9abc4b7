"""Find the image column of a dataset, and open what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .columns import listed, require_column

if TYPE_CHECKING:
    import datasets

IMAGE_COLUMNS = ("image", "img", "pixel_values", "picture", "photo")


@dataclass(frozen=True)
class ImageRow:
    """One image of a dataset, decoded when it is needed: a whole dataset of them would not fit into memory.

    Args:
        dataset: with the image column alone, so that opening a row reads nothing else.
        row: from 0.
    """

    dataset: datasets.Dataset
    row: int

    def open(self) -> Any:
        """The image in RGB. Raises `DataError` when the row holds none that can be read."""
        (column,) = self.dataset.column_names
        where = f"row {self.row + 1} of column {column!r}"
        try:
            value = self.dataset[self.row][column]
        except Exception as error:  # Pillow and datasets raise many unrelated types for files that are no images
            raise DataError(f"{where} is not an image that can be read: {' '.join(str(error).split())}") from error
        return to_rgb(value, where)


def image_column(dataset: datasets.Dataset, wanted: str | None = None) -> str:
    """The column with the image. Raises `DataError` when the wanted one is missing, or none holds images."""
    if wanted:
        return require_column(dataset, wanted, "image")
    from .extra import datasets

    typed = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    if len(typed) == 1:
        return typed[0]
    for name in IMAGE_COLUMNS:
        if name in (typed or dataset.column_names):
            return name
    raise DataError(
        f"cannot tell the image column among {listed(dataset)}; expected one of "
        f"the type datasets.Image, or name it (image_column=..., --text-column)"
    )


def image_rows(dataset: datasets.Dataset, column: str) -> list[ImageRow]:
    """Every image of a column, none decoded yet. Raises `ConfigError` without Pillow."""
    from .extra import datasets

    require_pillow()
    feature = dataset.features[column]
    own = dataset.select_columns([column])
    if isinstance(feature, datasets.Image) and not feature.decode:
        own = own.cast_column(column, datasets.Image())
    return [ImageRow(own, row) for row in range(len(own))]


def open_image(image: Any, where: str) -> Any:
    """An image given by itself or as the path of a file, in RGB. Raises `DataError` for anything else."""
    require_pillow()
    from PIL import Image

    if isinstance(image, (str, Path)):
        try:
            with Image.open(image) as opened:
                return to_rgb(opened, where)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{where} is not an image that can be read: {' '.join(str(error).split())}") from error
    return to_rgb(image, where)


def to_rgb(image: Any, where: str) -> Any:
    """A Pillow image, turned as its camera says, in RGB, as the pipelines of Transformers take it."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise DataError(
            f"{where} holds a {type(image).__name__}; expected an image of Pillow (cast the column of a dataset with "
            f"cast_column(name, datasets.Image()))"
        )
    try:
        return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow reads the pixels only now
        raise DataError(f"{where} is not an image that can be read: {' '.join(str(error).split())}") from error


def require_pillow() -> None:
    """Raises `ConfigError` where images cannot be opened."""
    from transformers.utils import is_vision_available

    if not is_vision_available():
        raise ConfigError("images need Pillow, which is not installed; pip install 'optimum-int8[vision]'")
