"""The object detection task: YOLOS and DETR from a dataset of images to a checkpoint and back, boxes, bad data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessorPil,
    PreTrainedModel,
    ResNetConfig,
    ViTImageProcessorPil,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessorPil,
    pipeline,
)

from optimum_int8 import Int8Config, ObjectDetectionQuantizer, OptimizedModel
from optimum_int8.errors import ConfigError, DataError
from optimum_int8.evaluation.metrics import load_metric
from optimum_int8.evaluation.objects import object_lists
from optimum_int8.quantizers import quantizer_for

from .test_image_classification import make_images, to_bytes

NAMES = {0: "cat", 1: "dog", 2: "bird"}


def yolos(names: dict[int, str] = NAMES) -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    return YolosForObjectDetection(
        YolosConfig(**sizes, image_size=[64, 64], patch_size=8, num_detection_tokens=6, id2label=names)
    )


def detr(names: dict[int, str] = NAMES) -> PreTrainedModel:
    """With a backbone of Transformers: no timm, nothing from the Hub."""
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, out_features=["stage4"])
    layers = {
        f"{side}_{what}": n
        for side in ("encoder", "decoder")
        for what, n in (("layers", 1), ("ffn_dim", 48), ("attention_heads", 2))
    }
    none = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    return DetrForObjectDetection(
        DetrConfig(**none, **layers, backbone_config=backbone, d_model=32, num_queries=6, id2label=names)
    )


PROCESSORS = {"yolos": YolosImageProcessorPil, "detr": DetrImageProcessorPil}
MODELS: dict[str, Callable[[dict[int, str]], PreTrainedModel]] = {"yolos": yolos, "detr": detr}


def make_model(name: str = "yolos", names: dict[int, str] = NAMES) -> PreTrainedModel:
    """Its queries find boxes far apart, of all classes, some with high scores."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[name](names).eval()
        for parameter in (p for n, p in model.named_parameters() if "token" in n or "query_position" in n):
            torch.nn.init.normal_(parameter)
        heads = [
            m for n, m in model.named_modules() if ("bbox" in n or "class" in n) and isinstance(m, torch.nn.Linear)
        ]
        for head in heads:
            torch.nn.init.normal_(head.weight, std=0.5)
    return model


def make_processor(name: str = "yolos", **size: int) -> Any:
    return PROCESSORS[name](size=size or {"shortest_edge": 48, "longest_edge": 80})


def make_dataset(quantizer: ObjectDetectionQuantizer, number: int = 4, as_names: bool = False) -> datasets.Dataset:
    """Images with what the FP32 model finds in them, so that its precision is 1."""
    images = make_images(number)
    rgb = [image.convert("RGB") for image in images]
    objects = []
    for found in quantizer.predictions(quantizer.model, [{"image": image} for image in rgb], 1, "finding"):
        boxes = [[b[0], b[1], b[2] - b[0], b[3] - b[1]] for b in found["boxes"]]
        labels = [NAMES[n] if as_names else n for n in found["labels"]]
        objects.append({"bbox": boxes, "category": labels, "id": list(range(len(boxes)))})
    data = datasets.Dataset.from_dict({"image": [to_bytes(image) for image in images], "objects": objects})
    return data.cast_column("image", datasets.Image())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_from_a_folder_to_a_checkpoint_and_back(name: str, approach: str, tmp_path: Path) -> None:
    make_model(name).save_pretrained(tmp_path / "fp32")
    make_processor(name).save_pretrained(tmp_path / "fp32")
    made = ObjectDetectionQuantizer.from_pretrained(tmp_path / "fp32")
    assert quantizer_for(made.model.config) is ObjectDetectionQuantizer
    data = make_dataset(made)
    made.quantize(Int8Config(approach=approach), data, tmp_path / "int8", batch_size=3)
    report = made.evaluate(data, batch_size=1, latency_rounds=1)  # padding changes what a random DETR finds
    assert report.metric == "map" and report.fp32.value > 0.9
    assert report.int8.value > 0.3  # overlaps up to 0.95 of what random weights find
    x = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    assert made.int8_model is not None
    with torch.no_grad():
        expected = made.int8_model(pixel_values=x)
        assert not torch.equal(expected.logits, made.model(pixel_values=x).logits)
        for loader in (OptimizedModel, AutoModelForObjectDetection):
            again = loader.from_pretrained(tmp_path / "int8").eval()(pixel_values=x)
            assert torch.equal(again.logits, expected.logits) and torch.equal(again.pred_boxes, expected.pred_boxes)


def test_predict_equals_the_pipeline(tmp_path: Path) -> None:
    made = ObjectDetectionQuantizer(make_model(), make_processor())
    images = make_images(3)
    images[0].save(tmp_path / "one.png")
    pipe = pipeline("object-detection", model=made.model, image_processor=made.tokenizer)
    for threshold in (0.3, 0.6):
        found = made.predict([str(tmp_path / "one.png"), *images[1:]], int8=False, threshold=threshold)
        expected = [pipe(image.convert("RGB"), threshold=threshold) for image in images]
        assert sum(map(len, expected)) > 0
        for ours, theirs in zip(found, expected, strict=True):
            theirs = sorted(theirs, key=lambda o: -o["score"])
            assert [(o["label"], o["box"]) for o in ours] == [(o["label"], o["box"]) for o in theirs]
            assert [o["score"] for o in ours] == pytest.approx([o["score"] for o in theirs], abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_images_of_several_sizes_share_a_batch_where_they_can(name: str) -> None:
    made = ObjectDetectionQuantizer(make_model(name), make_processor(name))
    images = [Image.new("RGB", size, color) for size, color in (((60, 40), "red"), ((40, 60), "blue"))]
    together, alone = (made.predict(images, int8=False, threshold=0.0, batch_size=size) for size in (2, 1))
    for a, b in zip(together, alone, strict=True):
        assert [o["label"] for o in a] == [o["label"] for o in b]
        for x, y in zip(a, b, strict=True):
            assert list(x["box"].values()) == pytest.approx(list(y["box"].values()), abs=5)  # padding changes a little
    made.int8_model = made.model
    if name == "yolos":
        with pytest.raises(ConfigError, match="without pixel_mask; set batch_size=1"):
            made.collate([{"image": image} for image in images])
    fixed = ObjectDetectionQuantizer(make_model(name), make_processor(name, height=48, width=64))
    assert fixed.collate([{"image": image} for image in images])["pixel_values"].shape == (2, 3, 48, 64)
    assert fixed._rows(4) == 4


def test_a_wrong_model_shows() -> None:
    made = ObjectDetectionQuantizer(make_model(), make_processor())
    data = make_dataset(made)
    made.int8_model = make_model()
    with torch.no_grad():
        for parameter in made.int8_model.bbox_predictor.parameters():
            parameter.neg_()
    assert made.evaluate(data, latency_rounds=1).int8.value < 0.3


def test_classes_by_name_and_by_number() -> None:
    made = ObjectDetectionQuantizer(make_model(), make_processor())
    numbers, names = (make_dataset(made, 3, as_names) for as_names in (False, True))
    assert made.references(numbers) == made.references(names)
    other = ["bird", "cat", "dog"]
    rows = [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [0]}, {"bbox": [], "category": []}]
    feature = {
        "bbox": datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
        "category": datasets.Sequence(datasets.ClassLabel(names=other)),
    }
    data = datasets.Dataset.from_dict({"objects": rows}, features=datasets.Features({"objects": feature}))
    expected = [{"boxes": [[1.0, 2.0, 4.0, 6.0]], "labels": [2]}, {"boxes": [], "labels": []}]
    assert object_lists(data, "objects", NAMES) == expected
    listed = [[{"bbox": [1.0, 2.0, 3.0, 4.0], "category_id": 2}], []]
    assert object_lists(datasets.Dataset.from_dict({"objects": listed}), "objects", NAMES) == expected


BOX = [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"bbox": [BOX], "category": [3]}], "row 1 .* holds 3; the model has the 3 classes"),
        ([{"bbox": [BOX], "category": ["zebra"]}], "row 1 .* holds 'zebra'"),
        ([{"bbox": [BOX, BOX], "category": [1]}], "expected boxes .* and as many classes"),
        ([{"corners": [BOX], "category": [1]}], "expected boxes"),
        ([{"bbox": [BOX[:3]], "category": [1]}], "the box .* expected left, top, width, height"),
        ([{"bbox": [[1.0, 2.0, -3.0, 4.0]], "category": [1]}], "the box"),
        ([{"bbox": [], "category": []}], "no object in 1 rows"),
        ([3], "row 1 of column 'objects' holds 3"),
    ],
)  # fmt: skip
def test_objects_that_are_none(rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        object_lists(datasets.Dataset.from_dict({"objects": rows}), "objects", NAMES)


def test_what_it_refuses() -> None:
    made = ObjectDetectionQuantizer(make_model(), ViTImageProcessorPil())
    with pytest.raises(ConfigError, match="cannot make boxes"):
        made.predict(make_images(1), int8=False)
    made = ObjectDetectionQuantizer(make_model(), make_processor())
    with pytest.raises(ConfigError, match="threshold is 2"):
        made.predict(make_images(1), int8=False, threshold=2)
    with pytest.raises(ConfigError, match="no INT8 model yet"):
        made.predict(make_images(1))
    with pytest.raises(DataError, match="0 inputs"):
        made.predict([], int8=False)
    with pytest.raises(ConfigError, match="no training here"):
        made.training_features(make_dataset(made, 2))


def test_mean_average_precision() -> None:
    truth = [{"boxes": [[0, 0, 10, 10], [20, 20, 30, 30]], "labels": [0, 1]}, {"boxes": [], "labels": []}]
    exact = [{**truth[0], "scores": [0.9, 0.8]}, {"boxes": [], "labels": [], "scores": []}]
    assert load_metric("map").compute(predictions=exact, references=truth)["map_75"] == pytest.approx(1.0)
    half = [{"boxes": [[0, 0, 10, 10]], "labels": [0], "scores": [0.9]}, exact[1]]
    assert load_metric("map").compute(predictions=half, references=truth)["map"] == pytest.approx(0.5)
    shifted = [{**exact[0], "boxes": [[0, 0, 10, 7], [20, 20, 30, 27]]}, exact[1]]  # overlap 0.7
    found = load_metric("map").compute(predictions=shifted, references=truth)
    assert found == pytest.approx({"map": 0.5, "map_50": 1.0, "map_75": 0.0}, abs=0.01)
    nothing = [exact[1], exact[1]]
    assert load_metric("map").compute(predictions=nothing, references=truth)["map"] == 0.0
