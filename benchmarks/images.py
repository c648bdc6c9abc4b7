"""Models on images: a ResNet-50 and a detector of YOLO v2's sizes, random weights, and their inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ResNetConfig
from transformers.modeling_outputs import BaseModelOutput


@dataclass
class YoloV2Config:
    """The sizes of YOLO v2 (Redmon and Farhadi, 2016): Darknet-19, a passthrough, five boxes of 80 classes."""

    model_type: str = "yolo-v2"
    image_size: int = 416
    boxes: int = 5
    classes: int = 80


def _conv(inner: int, outer: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(inner, outer, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, 0.1)
    return nn.Sequential(conv, nn.BatchNorm2d(outer), nn.LeakyReLU(0.1))


def _stack(inner: int, *layers: tuple[int, int] | str) -> tuple[nn.Sequential, int]:
    parts: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, str):
            parts.append(nn.MaxPool2d(2, 2))
        else:
            parts.append(_conv(inner, *layer))
            inner = layer[0]
    return nn.Sequential(*parts), inner


class Detector(nn.Module):
    """Images to boxes, float32 `[batch, boxes * (5 + classes), height / 32, width / 32]`."""

    def __init__(self, config: YoloV2Config) -> None:
        super().__init__()
        self.fine, wide = _stack(
            3, (32, 3), "pool", (64, 3), "pool", (128, 3), (64, 1), (128, 3), "pool", (256, 3), (128, 1), (256, 3), "pool",
            (512, 3), (256, 1), (512, 3), (256, 1), (512, 3),
        )  # fmt: skip
        self.coarse, deep = _stack(
            wide, "pool", (1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3), (1024, 3), (1024, 3)
        )
        self.passthrough = _conv(wide, 64, 1)
        self.head = _conv(4 * 64 + deep, 1024, 3)
        self.boxes = nn.Conv2d(1024, config.boxes * (5 + config.classes), 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See the class."""
        fine = self.fine(pixel_values)
        aside = nn.functional.pixel_unshuffle(self.passthrough(fine), 2)
        return self.boxes(self.head(torch.cat([aside, self.coarse(fine)], 1)))


class YoloV2(nn.Module):
    """The detector, called as models of Transformers are."""

    def __init__(self, config: YoloV2Config) -> None:
        super().__init__()
        self.config = config
        self.detector = Detector(config)

    def forward(self, pixel_values: Tensor) -> BaseModelOutput:
        """`last_hidden_state` holds the boxes."""
        return BaseModelOutput(last_hidden_state=self.detector(pixel_values))


NAMES: dict[str, Callable[[], Any]] = {"resnet-50": ResNetConfig, "yolo-v2": YoloV2Config}
"""Configurations by the names of the suite."""


def image_size(config: Any) -> int:
    """Height and width of the images that a model is made for."""
    return int(getattr(config, "image_size", 224))


def random_images(config: Any, batch: int, size: int, seed: int = 0) -> dict[str, Tensor]:
    """`pixel_values`, float32 `[batch, 3, size, size]`."""
    return {"pixel_values": torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))}


@dataclass(frozen=True)
class ImageWork:
    """What a model on images has to compute and to read."""

    multiply_adds: int  # of one image
    size: int
    weight_bytes: int

    @classmethod
    def of(cls, model: nn.Module) -> ImageWork:
        """Counted in one call."""
        found: list[int] = []

        def count(module: nn.Module, _: Any, y: Tensor) -> None:
            found.append(y.numel() * math.prod(module.weight.shape[1:]))  # type: ignore[operator,arg-type]

        convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        hooks = [m.register_forward_hook(count) for m in convs]
        with torch.inference_mode():
            model(**random_images(model.config, 1, image_size(model.config)))
        for hook in hooks:
            hook.remove()
        return cls(sum(found), image_size(model.config), sum(m.weight.numel() for m in convs))

    def operations(self, shape: Any) -> int:
        """INT8 operations (two per multiply-add)."""
        return round(2 * self.multiply_adds * shape.batch * (shape.length / self.size) ** 2)
