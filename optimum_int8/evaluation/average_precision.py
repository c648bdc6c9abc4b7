"""Mean average precision of objects found in images, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from .extra import datasets, evaluate
from .local_metric import LocalMetric
from .objects import Objects


class MeanAveragePrecision(LocalMetric):
    """COCO's mean average precision over classes and overlaps from 0.5 to 0.95, from 0 to 1, by pycocotools; with `map_50` and `map_75`.

    Predictions and references are `Objects`, one entry for each image.
    """

    summary = "mean average precision (COCO)"

    def compute(
        self, *, predictions: Sequence[Objects], references: Sequence[Objects], **kwargs: Any
    ) -> dict[str, float]:
        """See the class. Raises `ConfigError` without pycocotools."""
        try:
            from pycocotools.coco import COCO  # type: ignore[import-untyped]
            from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]
        except ImportError as error:
            raise ConfigError("mean average precision needs pycocotools; pip install 'optimum-int8[vision]'") from error
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            truth = COCO()
            truth.dataset = _coco(references)
            truth.createIndex()
            rows = [_detection(image, *found) for image, objects in enumerate(predictions) for found in _found(objects)]
            if not rows:
                return dict.fromkeys(("map", "map_50", "map_75"), 0.0)
            run = COCOeval(truth, truth.loadRes(np.array(rows)), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        return dict(zip(("map", "map_50", "map_75"), map(float, run.stats[:3]), strict=True))

    def _info(self) -> evaluate.EvaluationModuleInfo:
        plain = datasets.Value("string")
        features = datasets.Features({"predictions": plain, "references": plain})
        return evaluate.MetricInfo(description=self.summary, citation="", features=features, inputs_description="")


def _coco(references: Sequence[Objects]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image, objects in enumerate(references):
        for label, box in zip(objects["labels"], objects["boxes"], strict=True):
            width = box[2] - box[0]
            height = box[3] - box[1]
            place = {"id": len(annotations) + 1, "image_id": image, "category_id": label}
            annotations.append({**place, "bbox": [*box[:2], width, height], "area": width * height, "iscrowd": 0})
    labels = sorted({a["category_id"] for a in annotations})
    return {
        "info": {},
        "images": [{"id": i} for i in range(len(references))],
        "annotations": annotations,
        "categories": [{"id": label} for label in labels],
    }


def _found(objects: Objects) -> Any:
    return zip(objects["boxes"], objects["scores"], objects["labels"], strict=True)


def _detection(image: int, box: Sequence[float], score: float, label: int) -> list[float]:
    return [image, box[0], box[1], box[2] - box[0], box[3] - box[1], score, label]
