"""The worked example of convolutions: blocks where there is no control flow, Python where there is, the same detections."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from optimum_int8 import Int8Config, inspect, quantize
from optimum_int8.nn import Int8Conv2d
from optimum_int8.passes import find_blocks

FILE = Path(__file__).resolve().parents[1] / "examples" / "yolo" / "detector.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("yolo_detector", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["yolo_detector"] = module
    spec.loader.exec_module(module)
    return module


def make_detector(example: ModuleType) -> Any:
    torch.manual_seed(0)
    model = example.Detector(classes=4, width=4).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.8, 1.6)
            module.bias.data.normal_(0.0, 0.3)
            module.running_var.uniform_(0.2, 0.6)
    model.head.predict.weight.data.mul_(3.0)
    return model


def images(*size: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@torch.no_grad()
def test_blocks_detections_and_sizes(example: ModuleType) -> None:
    model = make_detector(example)
    data = [images(2, 3, 64, 96, seed=s) for s in range(3)]
    int8: Any = quantize(model, Int8Config(approach="static"), data, progress=False)
    int8(data[0])
    report = inspect(int8)
    assert {b.path: (b.gemms, b.left_in_torch) for b in report.blocks if b.path == "backbone"} == {
        "backbone": (8, ["permute"])
    }
    neck = next(b for b in report.blocks if b.path == "neck")
    assert neck.gemms == 2 and neck.instructions >= 2
    assert "a list, not tensors" in report.failures["head"]
    assert "head.predict" in report.single and isinstance(int8.head.predict, Int8Conv2d)

    features, expected = (m.neck(*m.backbone(data[0])) for m in (int8, model))
    assert (features - expected).square().mean().sqrt() < 0.08 * expected.square().mean().sqrt()
    matched = []
    for size in ((1, 64, 64), (2, 96, 64), (3, 128, 160)):
        x = images(size[0], 3, *size[1:])
        for ours, theirs in zip(int8(x, 0.1), model(x, 0.1), strict=True):
            matched += [any(_same(d, other) for other in ours) for d in theirs if d.score > 0.15]
    assert len(matched) > 10 and sum(matched) > 0.9 * len(matched)
    blocks = find_blocks(int8)
    assert [len(blocks[name].variants) for name in ("backbone", "neck")] == [1, 1]


def _same(a: Any, b: Any) -> bool:
    near = all(abs(x - y) < 16 for x, y in zip(a.box, b.box, strict=True))
    return a.label == b.label and near and abs(a.score - b.score) < 0.15


def test_overlapping_boxes_of_a_class_are_dropped(example: ModuleType) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [20, 20, 30, 30]])
    kept = example.suppress(boxes, torch.tensor([0.5, 0.9, 0.7, 0.6]), torch.tensor([0, 0, 1, 0]), 0.5)
    assert [(round(d.score, 1), d.label) for d in kept] == [(0.9, 0), (0.7, 1), (0.6, 0)]


@pytest.mark.slow
def test_it_runs(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    shown = capsys.readouterr().out
    assert "head stays Python" in shown and "backbone: 8 convolutions" in shown
