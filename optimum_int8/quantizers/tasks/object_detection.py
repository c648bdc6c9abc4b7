"""Object detection: an image to boxes with classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...errors import ConfigError
from ...evaluation.objects import Objects, object_column, object_lists
from ..steps.batching import Batch, Features, run_batches
from ..steps.images import ImageSize, given_images, opened
from .image_quantizer import ImageQuantizer

if TYPE_CHECKING:
    import datasets


class ObjectDetectionQuantizer(ImageQuantizer):
    """Quantizes `...ForObjectDetection` models (YOLOS, DETR); the metric is COCO's mean average precision.

    Datasets have an image column and one of objects: for each image boxes (`bbox`: left, top, width, height in pixels) and classes
    (`category`: numbers, or the model's class names). Images of different sizes share a batch where the model takes a `pixel_mask`, or
    where the image processor brings them to one size; elsewhere each is a batch of its own.

    Args:
        image_processor: another name for `tokenizer`, which holds the image processor here.
        image_column: name of the image column; None finds it by its type. `text_column` says the same, for recipes.

    Example:
        >>> quantizer = ObjectDetectionQuantizer.from_pretrained("hustvl/yolos-tiny")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="static"), train.select(range(128)), "my-int8")  # doctest: +SKIP
        >>> quantizer.predict(["street.png"])[0][0]  # doctest: +SKIP
        {'score': 0.97, 'label': 'car', 'box': {'xmin': 12, 'ymin': 40, 'xmax': 220, 'ymax': 131}}
    """

    task = "object-detection"
    head = "ForObjectDetection"
    auto_class = "AutoModelForObjectDetection"

    @property
    def metric(self) -> str:
        """`"map"`."""
        return "map"

    def require_image_processor(self) -> Any:
        """What makes `pixel_values` from images and boxes from outputs. Raises `ConfigError` when there is none."""
        processor = super().require_image_processor()
        if not hasattr(processor, "post_process_object_detection"):
            raise ConfigError(
                f"a {type(processor).__name__} cannot make boxes of a detector's outputs; expected the model's own image processor"
            )
        return processor

    def collate(self, features: Sequence[Features]) -> Batch:
        """`pixel_values` `[batch, channels, height, width]` in float32, and `pixel_mask` where the model takes it.

        Raises:
            DataError: an example is not an image.
            ConfigError: no image processor, or images at different sizes for a model that takes no mask.
        """
        if "image" not in features[0]:
            return super().collate(features)
        self.require_image_processor()
        images = opened(features)
        for example, image in zip(features, images, strict=True):
            example["size"] = ImageSize(image.height, image.width)  # for the boxes
        tensors = [self.pixels(image) for image in images]
        height, width = (max(t.shape[axis] for t in tensors) for axis in (1, 2))
        if len({t.shape for t in tensors}) > 1 and not self._takes_mask:
            raise ConfigError(
                f"images at different sizes, up to {height} x {width}, for a model without pixel_mask; set batch_size=1"
            )
        batch = {"pixel_values": torch.stack([_pad(t, height, width) for t in tensors])}
        if self._takes_mask:
            masks = [torch.ones(1, *t.shape[1:], dtype=torch.long) for t in tensors]
            batch["pixel_mask"] = torch.cat([_pad(m, height, width) for m in masks])
        return batch

    @property
    def _takes_mask(self) -> bool:
        return "pixel_mask" in inspect.signature(self.model.forward).parameters

    def _rows(self, batch_size: int) -> int:
        """How many images may share a batch."""
        size = dict(getattr(self.tokenizer, "size", None) or {})
        fixed = bool(size.get("height") and size.get("width"))
        return batch_size if self._takes_mask or fixed else 1

    def calibration_batches(self, dataset: Any, batch_size: int) -> Iterable[Any]:
        """As `Quantizer.calibration_batches`, with as many images in a batch as may share one."""
        return super().calibration_batches(dataset, self._rows(batch_size))

    def references(self, dataset: datasets.Dataset) -> list[Objects]:
        """Boxes and class numbers of each image. Raises `DataError` for what are none, and for classes that the model does not have."""
        column = object_column(dataset, self.label_column)
        return object_lists(dataset, column, self.model.config.id2label)

    def training_features(self, dataset: datasets.Dataset) -> list[Features]:
        """Raises `ConfigError`: detectors are not trained here."""
        raise ConfigError("object detection has no training here; quantize static or dynamic")

    def predictions(
        self, model: PreTrainedModel, features: Sequence[Features], batch_size: int, description: str
    ) -> list[Objects]:
        """All boxes that the model proposes, in pixels of the original image."""
        return self._find(model, features, batch_size, description, 0.0)

    def _find(
        self, model: PreTrainedModel, features: Sequence[Features], batch_size: int, description: str, threshold: float
    ) -> list[Objects]:
        if features and "image" not in features[0]:
            raise ConfigError(
                "the dataset holds ready model inputs; expected images, whose sizes the boxes are measured in"
            )
        processor = self.require_image_processor()

        def forward(batch: Batch) -> Sequence[Any]:
            outputs = self.forward(model, batch)
            return processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=None)

        rows = self._rows(batch_size)
        found = run_batches(features, self.collate, forward, batch_size=rows, description=description)
        return [_in_pixels(objects, example["size"]) for objects, example in zip(found, features, strict=True)]

    def predict(
        self, inputs: Any, *, batch_size: int = 8, int8: bool = True, threshold: float = 0.5
    ) -> list[list[dict[str, Any]]]:
        """Objects in images, best first, as `pipeline("object-detection")` gives them; a list per image.

        Args:
            inputs: an image of Pillow or the path of one, or several of them.
            int8: use the INT8 model; False uses the FP32 one.
            threshold: objects with a lower score are left out; 0 to 1.

        Raises:
            ConfigError: `int8` before anything was quantized, no image processor, or a threshold that is none.
            DataError: no images, or something that is not one.
        """
        features = given_images(inputs)
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"threshold is {threshold}; expected 0 to 1")
        model = self._require_int8() if int8 else self.model
        names = self.model.config.id2label
        results = []
        for objects in self._find(model, features, batch_size, "predicting", threshold):
            rows = zip(objects["scores"], objects["labels"], objects["boxes"], strict=True)
            best = sorted(rows, key=lambda row: -row[0])
            results.append([{"score": s, "label": names[n], "box": _whole(box)} for s, n, box in best])
        return results


def _pad(image: Tensor, height: int, width: int) -> Tensor:
    return torch.nn.functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))


def _in_pixels(objects: dict[str, Tensor], size: ImageSize) -> Objects:
    """What the image processor gives, its boxes as shares of the image, as lists in pixels."""
    boxes = objects["boxes"].float() * torch.tensor([size.width, size.height, size.width, size.height])
    return {"boxes": boxes.tolist(), "scores": objects["scores"].tolist(), "labels": objects["labels"].tolist()}


def _whole(box: Sequence[float]) -> dict[str, int]:
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), map(int, box), strict=True))
