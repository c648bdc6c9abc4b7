"""A detector in the style of YOLO v2 (Redmon and Farhadi 2016, arXiv:1612.08242), small and with random weights: a backbone of convolutions,
a pass-through from a finer map, and a head that decodes anchors and drops overlapping boxes in plain Python.

What fine-grained FX makes of it: backbone and neck have no control flow that depends on values, and become one native program each; the
head has, and stays Python around its one INT8 convolution. No line of the model is written for quantization.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

ANCHORS = ((1.3, 1.7), (3.2, 4.0), (5.1, 8.1))
"""Width and height of the boxes that predictions start from, in cells."""

STRIDE = 16
"""Pixels of a cell; heights and widths of images are multiples of it."""


class Detection(NamedTuple):
    """One object: left, top, right, bottom in pixels, how sure, and its class."""

    box: tuple[float, float, float, float]
    score: float
    label: int


def convolution(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, leaky ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


class Backbone(nn.Module):
    """Images `[batch, 3, height, width]` to two maps: an eighth and a sixteenth of their size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            convolution(3, width), nn.MaxPool2d(2), convolution(width, 2 * width), nn.MaxPool2d(2),
            convolution(2 * width, 4 * width), convolution(4 * width, 2 * width, 1), convolution(2 * width, 4 * width), nn.MaxPool2d(2),
            convolution(4 * width, 8 * width),
        )  # fmt: skip
        self.second = nn.Sequential(
            nn.MaxPool2d(2), convolution(8 * width, 16 * width), convolution(16 * width, 16 * width)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        fine = self.first(images)
        return fine, self.second(fine)


class Neck(nn.Module):
    """Joins the finer map, four neighbours folded into channels, with the coarser one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow, self.join = convolution(8 * width, width, 1), convolution(20 * width, 16 * width)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """See the class."""
        folded = nn.functional.pixel_unshuffle(self.narrow(fine), 2)
        return self.join(torch.cat([folded, coarse], 1))


class Head(nn.Module):
    """A map to detections: for each cell and anchor an offset, a size, how sure, and classes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.predict = nn.Conv2d(channels, len(ANCHORS) * (5 + classes), 1)

    def forward(self, features: Tensor, confidence: float, overlap: float) -> list[list[Detection]]:
        """One list per image, best first."""
        raw = self.predict(features)
        batch, _, rows, columns = raw.shape
        raw = raw.view(batch, len(ANCHORS), 5 + self.classes, rows, columns).permute(0, 1, 3, 4, 2)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centre = (raw[..., :2].sigmoid() + torch.stack([x, y], -1)) * STRIDE
        half = raw[..., 2:4].clamp(max=4.0).exp() * torch.tensor(ANCHORS)[:, None, None] * (STRIDE / 2)
        boxes = torch.cat([centre - half, centre + half], -1)
        scores = raw[..., 4:5].sigmoid() * raw[..., 5:].softmax(-1)
        found = []
        for image in range(batch):
            best, labels = scores[image].max(-1)
            sure = best > confidence
            if not sure.any():
                found.append([])
                continue
            found.append(suppress(boxes[image][sure], best[sure], labels[sure], overlap))
        return found


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> list[Detection]:
    """Non-maximum suppression: of boxes of one class that overlap more than `overlap`, the best one."""
    order, kept = scores.argsort(descending=True), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(Detection(tuple(boxes[best].tolist()), float(scores[best]), int(labels[best])))
        inner = (
            torch.minimum(boxes[best, 2:], boxes[order, 2:]) - torch.maximum(boxes[best, :2], boxes[order, :2])
        ).clamp(min=0)
        shared, areas = inner.prod(-1), (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        union = areas[best] + areas[order] - shared
        order = order[(shared / union <= overlap) | (labels[order] != labels[best])]
    return kept


class Detector(nn.Module):
    """Images to detections."""

    def __init__(self, classes: int = 20, width: int = 8) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = Backbone(width), Neck(width), Head(16 * width, classes)

    def forward(self, images: Tensor, confidence: float = 0.5, overlap: float = 0.45) -> list[list[Detection]]:
        """`[batch, 3, height, width]` to one list per image."""
        return self.head(self.neck(*self.backbone(images)), confidence, overlap)


def main() -> None:
    """Calibrate, look, convert, and compare."""
    from optimum_int8 import QuantConf, calibrate, convert, inspect

    torch.manual_seed(0)
    model, conf = Detector().eval(), QuantConf()
    with torch.no_grad():
        for images in torch.rand(4, 2, 3, 128, 128):
            with calibrate(conf):
                model(images)
        int8, images = convert(model, conf, torch.rand(2, 3, 128, 128)), torch.rand(2, 3, 96, 160)
        for name, each in (("FP32", model), ("INT8", int8)):
            print(name, [[f"class {d.label} {d.score:.2f}" for d in image] for image in each(images, confidence=0.03)])
    report = inspect(int8)
    for block in report.blocks:
        print(f"{block.path}: {block.gemms} convolutions in {block.instructions} instructions")
    print(*(f"{path} stays Python: {reason}" for path, reason in report.failures.items()), sep="\n")


if __name__ == "__main__":
    main()
