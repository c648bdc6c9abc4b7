"""`ImageQuantizer`: what the tasks on images share. The image processor takes the tokenizer's place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...errors import ConfigError
from ...evaluation.images import image_column, image_rows
from ..base import Quantizer
from ..steps.batching import Features
from ..steps.inputs import model_input_columns
from ..steps.loading import load_image_processor

if TYPE_CHECKING:
    import datasets


class ImageQuantizer(Quantizer):
    """Base of the tasks on images: images are opened and prepared batch by batch.

    Args:
        image_processor: another name for `tokenizer`, which holds the image processor here.
        image_column: name of the image column; None finds it by its type. `text_column` says the same, for recipes.
    """

    own_options = ("image_processor", "image_column")
    load_processor = staticmethod(load_image_processor)

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any = None,
        *,
        image_processor: Any = None,
        image_column: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, tokenizer if image_processor is None else image_processor, **options)
        wanted = image_column or self.text_column
        if wanted is not None and not isinstance(wanted, str):
            raise ConfigError(f"the image column is {wanted!r}; expected one name")
        self.image_column = wanted

    def require_image_processor(self) -> Any:
        """What makes `pixel_values` from images. Raises `ConfigError` when there is none."""
        if self.tokenizer is None:
            raise ConfigError(f"the model has no image processor ({self.tokenizer_problem}); pass image_processor=...")
        return self.tokenizer

    def pixels(self, image: Any) -> Tensor:
        """One image as its processor prepares it, `[channels, height, width]`. One by one: processors that take several stack them and fail
        with many unrelated types at different sizes. Raises `ConfigError` without a processor."""
        prepared = self.require_image_processor()(images=image, return_tensors="pt")
        return torch.as_tensor(prepared[self.model.main_input_name])[0]

    def preprocess(self, dataset: datasets.Dataset) -> list[Features]:
        """The rows' images, opened by `collate`; or the model's inputs that the dataset has."""
        import datasets

        column = None if self.image_column else model_input_columns(self.model, dataset)
        if column and not isinstance(dataset.features[column[0]], datasets.Image):
            return super().preprocess(dataset)
        self.require_image_processor()
        return [{"image": row} for row in image_rows(dataset, image_column(dataset, self.image_column))]
