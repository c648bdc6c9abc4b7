"""A module that keeps tensors from call to call does so once per call, whatever a block tries on the way; the modules inside it become blocks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from optimum_int8.passes import find_blocks, install
from tests.fx.toys import int8_linear


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = int8_linear()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x) * self.calls


class Remembers(Counts):
    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if self.last is not None:
            y = y + self.last
        self.last = y
        return y


@pytest.mark.parametrize("make", [Counts, Remembers])
def test_state_changes_once_per_call(make: type[Counts]) -> None:
    module = make()
    own = copy.deepcopy(module)
    install(nn.ModuleDict({"module": module}).eval())
    with torch.no_grad():
        for _ in range(5):
            x = torch.randn(2, 6, 16)
            assert torch.equal(module(x), own(x))
    assert any(block.module is module.linear and any(block.variants.values()) for block in find_blocks(module).values())
