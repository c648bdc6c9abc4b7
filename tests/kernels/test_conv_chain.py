"""Convolutions that threads compute together pixel by pixel (csrc/ops/conv_chain.h) give what they give one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import Int8Config, kernels, quantize

ISAS = kernels.info()["isa_found"]
pytestmark = pytest.mark.skipif(not ISAS, reason="no native library")


class Bottleneck(nn.Module):
    """As in a ResNet: what is read beside the own pixel (3x3), a stride, sums of both kinds, and sizes that end within a panel."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(48, 40, 1), nn.Conv2d(40, 40, 3, stride, 1)
        self.last, self.shortcut = nn.Conv2d(40, 200, 1), nn.Conv2d(48, 200, 1, stride)
        self.again, self.back, self.end = nn.Conv2d(200, 64, 1), nn.Conv2d(64, 200, 1), nn.Conv2d(200, 33, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.last(torch.relu(self.middle(torch.relu(self.first(x))))) + self.shortcut(x))
        return self.end(torch.relu(self.back(torch.relu(self.again(y))) + y))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("residuals", ["int8", "float32"])
def test_as_one_by_one(stride: int, residuals: str) -> None:
    torch.manual_seed(stride)
    model = nn.Sequential(Bottleneck(stride)).eval()
    x = torch.randn(2, 48, 61, 67)  # more than are computed at a time
    int8 = quantize(model, Int8Config(approach="static", residuals=residuals), [(x,)], progress=False)
    with torch.no_grad():
        small = int8(
            x[:, :, :9, :9]
        )  # too few pixels to be divided; the larger image must agree where it sees the same
        results = {}
        for isa in ISAS:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                with kernels.use_isa(isa):
                    results[isa, count] = int8(x)
    inner = 9 // stride - 2
    for key, result in results.items():
        assert torch.equal(result, results["portable", 1]), key
        assert torch.equal(result[:, :, :inner, :inner], small[:, :, :inner, :inner]), key
