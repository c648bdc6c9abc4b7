"""Modules of torch may be called with their argument's name: `linear(input=x)`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import Int8Config, quantize
from optimum_int8.quantization import prepare_copy
from optimum_int8.tuning import measure_sensitivity

MODULES = {
    "linear": lambda: (nn.Linear(6, 4), torch.randn(3, 6)),
    "conv": lambda: (nn.Conv2d(3, 4, 3), torch.randn(2, 3, 5, 6)),
    "conv3d": lambda: (nn.Conv3d(3, 4, 2, stride=2), torch.randn(2, 3, 2, 4, 6)),
    "embedding": lambda: (nn.Embedding(10, 4), torch.tensor([[1, 2, 9]])),
    "pool": lambda: (nn.AvgPool2d(2), torch.randn(2, 3, 4, 6)),
}


class Named(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.last = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(input=self.module(input=x).float().unsqueeze(-1))


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("name", MODULES)
def test_called_by_name(name: str, approach: str, fuse: bool) -> None:
    torch.manual_seed(0)
    module, x = MODULES[name]()
    model = Named(module).eval()
    data = [(x,)] if approach == "static" else None
    int8 = quantize(copy.deepcopy(model), Int8Config(approach=approach, fuse=fuse), data, progress=False)
    with torch.no_grad():
        expected, found = model(x), int8(x)
        assert (found - expected).norm() / expected.norm() < 0.03
        assert torch.equal(int8(x), found)


@pytest.mark.parametrize("name", MODULES)
def test_sensitivity_of_modules_called_by_name(name: str) -> None:
    torch.manual_seed(0)
    module, x = MODULES[name]()
    prepared = prepare_copy(Named(module).eval(), Int8Config(approach="static"), [(x,)], progress=False)
    rows = measure_sensitivity(prepared, [(x,)], progress=False)
    assert {row.name for row in rows} == {"module", "last"}
