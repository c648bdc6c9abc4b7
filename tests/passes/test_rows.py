"""Shares of multiply-adds: a convolution counts at each position of its result."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optimum_int8 import Int8Config, inspect, quantize


@torch.no_grad()
def test_a_convolution_counts_at_each_position() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=4, padding=1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    ).eval()  # fmt: skip
    work = [3 * 8 * 9 * 32 * 32, 4 * 16 * 9 * 8 * 8, 16 * 10]
    x = torch.randn(2, 3, 32, 32)
    for place in range(3):
        name = ("0", "1", "4")[place]
        int8 = quantize(model, Int8Config(approach="static", exclude=(name,)), [x], progress=False)
        int8(x)
        assert inspect(int8, x).int8_share == pytest.approx(1 - work[place] / sum(work))
        assert inspect(int8, {"input": x}).int8_share == inspect(int8, (x,)).int8_share
    assert inspect(int8).int8_share != inspect(int8, x).int8_share


@torch.no_grad()
def test_tokens_and_shared_modules() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(self.a(x)))

    int8 = quantize(nn.Sequential(Twice()), Int8Config(approach="dynamic", exclude=("0.b",)))
    assert inspect(int8, torch.randn(2, 5, 8)).int8_share == pytest.approx(2 / 3)
    assert not any(module._forward_hooks for module in int8.modules())
