"""Image classification: an image to a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from ...errors import ConfigError
from ...evaluation.columns import class_labels, label_column
from ..steps.batching import Batch, Features, run_batches
from ..steps.images import given_images, opened
from .image_quantizer import ImageQuantizer

if TYPE_CHECKING:
    import datasets


class ImageClassificationQuantizer(ImageQuantizer):
    """Quantizes `...ForImageClassification` models (ResNet, ViT, ConvNeXt); the metric is accuracy.

    Datasets have an image column and a label column: numbers, or the model's class names. Images are opened and
    prepared batch by batch. The image processor takes the tokenizer's place: it is loaded and saved with the model.

    Args:
        image_processor: another name for `tokenizer`, which holds the image processor here.
        image_column: name of the image column; None finds it by its type. `text_column` says the same, for recipes.

    Example:
        >>> quantizer = ImageClassificationQuantizer.from_pretrained("my-resnet")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="static"), train.select(range(128)), "my-int8")  # doctest: +SKIP
        >>> quantizer.predict(["cat.png"])[0][0]["label"]  # doctest: +SKIP
        'cat'
    """

    task = "image-classification"
    head = "ForImageClassification"
    auto_class = "AutoModelForImageClassification"

    def __init__(self, model: PreTrainedModel, tokenizer: Any = None, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        if model.config.problem_type == "multi_label_classification" or model.config.num_labels < 2:
            raise ConfigError("the model gives several labels per image, or a number; expected one of several classes")

    @property
    def metric(self) -> str:
        """`"accuracy"`."""
        return "accuracy"

    def collate(self, features: Sequence[Features]) -> Batch:
        """`pixel_values` `[batch, channels, height, width]` in float32.

        Raises:
            DataError: an example is not an image.
            ConfigError: no image processor, or one that leaves images at different sizes.
        """
        if "image" not in features[0]:
            return super().collate(features)
        self.require_image_processor()
        tensors = [self.pixels(image) for image in opened(features)]
        sizes = sorted({tuple(tensor.shape) for tensor in tensors})
        if len(sizes) > 1:
            raise ConfigError(f"the image processor leaves images at {sizes[0]} and {sizes[1]}; expected one size")
        return {self.model.main_input_name: torch.stack(tensors)}

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """Class numbers of the model. Raises `DataError` for labels that the model does not have."""
        return class_labels(dataset, label_column(dataset, self.label_column), self.model.config.id2label)

    def training_features(self, dataset: datasets.Dataset) -> list[Features]:
        """Images with `labels`, the class numbers."""
        pairs = zip(self.preprocess(dataset), self.references(dataset), strict=True)
        return [{**features, "labels": label} for features, label in pairs]

    def postprocess(self, outputs: Any) -> Sequence[Any]:
        """Class numbers of one batch, from logits `[batch, labels]`."""
        return list(outputs.logits.float().argmax(dim=-1).tolist())

    def predict(
        self, inputs: Any, *, batch_size: int = 8, int8: bool = True, top_k: int = 5
    ) -> list[list[dict[str, Any]]]:
        """Labels and scores of images, best first, as `pipeline("image-classification")` gives them; a list per image.

        Args:
            inputs: an image of Pillow or the path of one, or several of them.
            int8: use the INT8 model; False uses the FP32 one.
            top_k: how many classes per image; all of them when there are fewer.

        Raises:
            ConfigError: `int8` before anything was quantized, no image processor, or `top_k` below 1.
            DataError: no images, or something that is not one.
        """
        features = given_images(inputs)
        if top_k < 1:
            raise ConfigError(f"top_k is {top_k}; expected at least 1")
        model = self._require_int8() if int8 else self.model

        def forward(batch: Batch) -> Sequence[torch.Tensor]:
            return list(self.forward(model, batch).logits.float())

        logits = run_batches(features, self.collate, forward, batch_size=batch_size, description="predicting")
        return [self._labels(row, top_k) for row in logits]

    def _labels(self, logits: torch.Tensor, top_k: int) -> list[dict[str, Any]]:
        scores, numbers = logits.softmax(dim=-1).topk(min(top_k, len(logits)))
        names = self.model.config.id2label
        pairs = zip(scores.tolist(), numbers.tolist(), strict=True)
        return [{"label": names[number], "score": score} for score, number in pairs]
