"""ResNet-20 on CIFAR-10: INT8 keeps the accuracy, to the bit on every instruction set and after loading."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from optimum_int8 import Int8Config, kernels, quantize
from optimum_int8.passes import find_blocks
from tests import resnet20

pytestmark = [pytest.mark.shared, pytest.mark.slow]


@functools.cache
def test_data(shared: Path) -> tuple[torch.Tensor, torch.Tensor]:
    return resnet20.images(shared, "test")


test_data.__test__ = False  # type: ignore[attr-defined]


def accuracy(model: nn.Module, shared: Path) -> float:
    x, labels = test_data(shared)
    with torch.no_grad():
        found = torch.cat([model(batch).argmax(1) for batch in x.split(250)])
    return (found == labels).float().mean().item()


@functools.cache
def int8(shared: Path, approach: str) -> nn.Module:
    calibration = resnet20.images(shared, "train")[0].split(100)
    return quantize(resnet20.load(shared), Int8Config(approach=approach), list(calibration), progress=False)


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_accuracy_is_within_one_percent_of_fp32(approach: str, shared_dir: Path) -> None:
    reference = accuracy(resnet20.load(shared_dir), shared_dir)
    found = accuracy(int8(shared_dir, approach), shared_dir)
    print(f"FP32 {reference:.4f}, INT8 {approach} {found:.4f}, relative loss {1 - found / reference:.4%}")
    assert found >= 0.99 * reference


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_every_isa_gives_the_same_bits(approach: str, shared_dir: Path) -> None:
    x = test_data(shared_dir)[0][:5]
    results = []
    with torch.no_grad():
        for isa in kernels.info()["isa_found"]:
            with kernels.use_isa(isa):
                results.append(int8(shared_dir, approach)(x))
    assert all(torch.equal(r, results[0]) for r in results)


def test_its_stages_are_blocks(shared_dir: Path) -> None:
    model = int8(shared_dir, "static")
    with torch.no_grad():
        model(test_data(shared_dir)[0][:2])
    assert {"layer1", "layer2", "layer3"} <= {
        name for name, b in find_blocks(model).items() if any(b.variants.values())
    }
