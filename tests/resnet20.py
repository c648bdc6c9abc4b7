"""ResNet-20 for CIFAR-10 in the layout of the CIFAR ResNet paper, as a plain module, and the images of shared/data/cifar10."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two convolutions; a shortcut of type A skips pixels and fills channels with zeros."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.more = outer - inner

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(F.avg_pool2d(x, x.shape[3]).flatten(1))


def load(shared: Path) -> ResNet20:
    stored = torch.load(next((shared / "models/resnet20-cifar10").glob("*.th")), weights_only=True, map_location="cpu")[
        "state_dict"
    ]
    model = ResNet20().eval()
    model.load_state_dict({name.removeprefix("module."): value for name, value in stored.items()})
    return model


def images(shared: Path, split: str) -> tuple[Tensor, Tensor]:
    """Normalised images `[n, 3, 32, 32]` and their classes, which count the folders in alphabetical order."""
    pixels, names = [], []
    with zipfile.ZipFile(shared / f"data/cifar10/{split}.zip") as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            pixels.append(np.asarray(Image.open(io.BytesIO(archive.read(name)))))
            names.append(name.split("/")[-2])
    classes = sorted(set(names))
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return x, torch.tensor([classes.index(name) for name in names])
