"""The image classification task: ResNet and ViT from a dataset of images to a checkpoint and back, bad data."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    pipeline,
)

from optimum_int8 import ImageClassificationQuantizer, Int8Config, OptimizedModel
from optimum_int8.errors import ConfigError, DataError
from optimum_int8.quantizers import quantizer_for

from ..tiny import make_folder

NAMES = {0: "cat", 1: "dog", 2: "bird"}


def resnet() -> PreTrainedModel:
    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [1, 1]}
    return ResNetForImageClassification(ResNetConfig(**sizes, id2label=NAMES))


def vit() -> PreTrainedModel:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, id2label=NAMES))


def convnext() -> PreTrainedModel:
    """Depthwise convolutions, layer norms channels-first and last, layer scale."""
    sizes: dict[str, Any] = {"hidden_sizes": [16, 24], "depths": [1, 1], "num_stages": 2, "layer_scale_init_value": 0.5}
    return ConvNextForImageClassification(ConvNextConfig(**sizes, id2label=NAMES))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {"resnet": resnet, "vit": vit, "convnext": convnext}


def make_model(name: str = "resnet") -> PreTrainedModel:
    """Its classes are far apart and about equally frequent on `make_images`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[name]().eval()
        head = model.classifier[-1] if name == "resnet" else model.classifier
        torch.nn.init.normal_(head.weight)
        with torch.no_grad():
            logits = model(pixel_values=pixels(make_images(24))).logits
            head.weight.mul_(4 / logits.std(dim=0).mean())
            head.bias.sub_(4 / logits.std(dim=0).mean() * (logits - head.bias).mean(dim=0) + head.bias)
    return model


def make_processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": 32, "width": 32})


def make_images(number: int, seed: int = 0) -> list[Image.Image]:
    """Coarse random patterns of several sizes, every third one grey."""
    source = np.random.default_rng(seed)
    images = []
    for index in range(number):
        pattern = source.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        size = (int(source.integers(20, 60)), int(source.integers(20, 60)))
        images.append(Image.fromarray(pattern).resize(size).convert("L" if index % 3 == 0 else "RGB"))
    return images


def pixels(images: list[Image.Image]) -> torch.Tensor:
    rgb = [image.convert("RGB") for image in images]
    return make_processor()(images=rgb, return_tensors="pt")["pixel_values"]


def make_dataset(model: PreTrainedModel, column: str = "image", number: int = 24) -> datasets.Dataset:
    """Images labelled by the FP32 model itself, so that its accuracy is 1."""
    images = make_images(number)
    with torch.no_grad():
        labels = model(pixel_values=pixels(images)).logits.argmax(-1).tolist()
    assert len(set(labels)) == 3
    rows = {column: [to_bytes(image) for image in images], "label": labels}
    return datasets.Dataset.from_dict(rows).cast_column(column, datasets.Image())


def to_bytes(image: Image.Image) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture(scope="module")
def quantizer() -> ImageClassificationQuantizer:
    made = ImageClassificationQuantizer(make_model(), make_processor())
    made.quantize(Int8Config(approach="dynamic"))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("name", MODELS)
def test_from_a_folder_to_a_checkpoint_and_back(name: str, approach: str, tmp_path: Path) -> None:
    make_model(name).save_pretrained(tmp_path / "fp32")
    make_processor().save_pretrained(tmp_path / "fp32")
    made = ImageClassificationQuantizer.from_pretrained(tmp_path / "fp32")
    assert quantizer_for(made.model.config) is ImageClassificationQuantizer
    data = make_dataset(made.model, "img")
    made.quantize(Int8Config(approach=approach), data, tmp_path / "int8")
    report = made.evaluate(data, batch_size=5, latency_rounds=1)
    assert (report.metric, report.fp32.value) == ("accuracy", 1.0)
    assert report.int8.value > 0.7
    assert (tmp_path / "int8" / "preprocessor_config.json").exists()
    x = pixels(make_images(4, seed=1))
    assert made.int8_model is not None
    with torch.no_grad():
        expected = made.int8_model(pixel_values=x).logits
        assert not torch.equal(expected, made.model(pixel_values=x).logits)
        for loader in (OptimizedModel, AutoModelForImageClassification):
            again = loader.from_pretrained(tmp_path / "int8").eval()
            assert torch.equal(again(pixel_values=x).logits, expected)
    pipe = pipeline("image-classification", model=str(tmp_path / "int8"))
    same(made.predict(make_images(2), batch_size=1), pipe(make_images(2)))


def same(found: list[Any], expected: list[Any]) -> None:
    assert [[row["label"] for row in rows] for rows in found] == [[row["label"] for row in rows] for rows in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert [row["score"] for row in ours] == pytest.approx([row["score"] for row in theirs], abs=1e-5)


def test_predict_takes_images_and_paths(quantizer: ImageClassificationQuantizer, tmp_path: Path) -> None:
    images = make_images(3)
    images[1].save(tmp_path / "one.png")
    (rows,) = quantizer.predict(str(tmp_path / "one.png"), int8=False, top_k=2)
    pipe = pipeline("image-classification", model=quantizer.model, image_processor=make_processor())
    same([rows], pipe([images[1]], top_k=2))
    same(quantizer.predict(images, int8=False), pipe(images))


def test_a_wrong_model_shows(quantizer: ImageClassificationQuantizer) -> None:
    made = ImageClassificationQuantizer(quantizer.model, make_processor())
    made.int8_model = make_model()
    with torch.no_grad():
        made.int8_model.classifier[-1].weight.neg_()
    report = made.evaluate(make_dataset(made.model), latency_rounds=1)
    assert report.fp32.value == 1.0 > report.int8.value + 0.3


@pytest.mark.slow
def test_labels_by_name_and_ready_inputs(quantizer: ImageClassificationQuantizer) -> None:
    data = make_dataset(quantizer.model)
    names = ["BIRD", "cat", "Dog"]  # another order, another case
    numbers = [[name.casefold() for name in names].index(NAMES[label]) for label in data["label"]]
    other = data.remove_columns("label").add_column("labels", numbers)
    other = other.cast_column("labels", datasets.ClassLabel(names=names))
    assert quantizer.evaluate(other, latency_rounds=1).fp32.value == 1.0
    ready = datasets.Dataset.from_dict({"pixel_values": pixels(make_images(24)).tolist(), "label": data["label"]})
    assert quantizer.evaluate(ready, latency_rounds=1).fp32.value == 1.0


def test_undecoded_images_and_a_named_column(quantizer: ImageClassificationQuantizer) -> None:
    data = make_dataset(quantizer.model, "leaf").cast_column("leaf", datasets.Image(decode=False))
    data = data.add_column("image", ["not it"] * len(data))
    made = ImageClassificationQuantizer(quantizer.model, make_processor(), image_column="leaf")
    made.int8_model = quantizer.int8_model
    assert made.evaluate(data, latency_rounds=1).fp32.value == 1.0


def test_training_features_have_labels(quantizer: ImageClassificationQuantizer) -> None:
    data = make_dataset(quantizer.model)
    assert [features["labels"] for features in quantizer.training_features(data)] == data["label"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sentence": ["word1"], "label": [0]}, "cannot tell the image column among sentence, label"),
        ({"image": ["cat.png"], "label": [0]}, "row 1 of column 'image' holds a str; expected an image"),
        ({"image": [], "label": []}, "has no rows"),
    ],
)
def test_data_that_does_not_fit(columns: dict[str, Any], message: str, quantizer: ImageClassificationQuantizer) -> None:
    with pytest.raises(DataError, match=message):
        quantizer.evaluate(datasets.Dataset.from_dict(columns))


def test_labels_and_images_that_do_not_fit(quantizer: ImageClassificationQuantizer) -> None:
    data = make_dataset(quantizer.model)
    with pytest.raises(DataError, match="no label column among image"):
        quantizer.evaluate(data.remove_columns("label"))
    wrong = data.remove_columns("label").add_column("label", [3] * len(data))
    with pytest.raises(DataError, match="row 1 of column 'label' holds 3; the model has the 3 classes 0=cat"):
        quantizer.evaluate(wrong)
    broken = datasets.Dataset.from_dict({"image": [{"bytes": b"no image", "path": None}], "label": [0]})
    with pytest.raises(DataError, match="row 1 of column 'image' is not an image that can be read"):
        quantizer.evaluate(broken.cast_column("image", datasets.Image()))


def test_inputs_that_are_not_images(quantizer: ImageClassificationQuantizer, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match="input 1 is not an image that can be read"):
        quantizer.predict(tmp_path / "text.png")
    with pytest.raises(DataError, match="input 2 is not an image that can be read"):
        quantizer.predict([make_images(1)[0], str(tmp_path / "missing.png")])
    with pytest.raises(DataError, match="input 1 holds a int; expected an image"):
        quantizer.predict([3])
    with pytest.raises(DataError, match="0 inputs given"):
        quantizer.predict([])
    with pytest.raises(ConfigError, match="top_k is 0"):
        quantizer.predict(make_images(1), top_k=0)


def test_models_and_processors_that_do_not_fit(quantizer: ImageClassificationQuantizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a class that ends in ForImageClassification"):
        ImageClassificationQuantizer.from_pretrained(make_folder(tmp_path / "bert"))
    make_model().save_pretrained(tmp_path / "alone")
    alone = ImageClassificationQuantizer.from_pretrained(tmp_path / "alone")
    with pytest.raises(ConfigError, match="no image processor .*pass image_processor="):
        alone.quantize(Int8Config(approach="static"), make_dataset(quantizer.model))
    given = ImageClassificationQuantizer.from_pretrained(tmp_path / "alone", image_processor=make_processor())
    assert given.predict(make_images(1), int8=False)
    resizes_nothing = ImageClassificationQuantizer(quantizer.model, ViTImageProcessorPil(do_resize=False))
    with pytest.raises(ConfigError, match="the image processor leaves images at .*; expected one size"):
        resizes_nothing.predict(make_images(2), int8=False)
    with pytest.raises(ConfigError, match="expected one of several classes"):
        ImageClassificationQuantizer(ViTForImageClassification(ViTConfig(hidden_size=12, num_labels=1)))
