"""A graph serves only the sizes for which its module takes the branch that was captured."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from optimum_int8.passes import find_blocks, install
from tests.fx.toys import int8_linear

CONDITIONS: dict[str, Callable[[Tensor], bool]] = {
    "a long sequence": lambda x: x.shape[1] > 20,
    "a large batch": lambda x: x.shape[0] > 4,
    "a length that four divides": lambda x: x.shape[1] % 4 == 0,
    "more sequences than tokens": lambda x: x.shape[0] > x.shape[1],
    "many tokens in all": lambda x: x.shape[0] * x.shape[1] > 100,
    "one token": lambda x: x.shape[1] == 1,
    "one sequence": lambda x: x.shape[0] == 1,
}


class Branches(nn.Module):
    def __init__(self, condition: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.linear = int8_linear()
        self.condition = condition

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y * 2 if self.condition(x) else y


@pytest.mark.parametrize("name", CONDITIONS)
def test_python_that_asks_for_sizes_gets_its_branch(name: str) -> None:
    module = Branches(CONDITIONS[name])
    install(nn.ModuleDict({"module": module}).eval())
    taken = set()
    for shape in [(2, 6), (2, 7), (2, 8), (3, 30), (7, 6), (2, 60), (2, 1), (1, 6), (1, 1), (2, 6)]:
        x = torch.randn(*shape, 16)
        taken.add(module.condition(x))
        assert torch.equal(module(x), Branches.forward(module, x)), shape
    assert taken == {True, False}
    (block,) = [b for b in find_blocks(module).values() if b.module is module]
    assert any(block.variants.values()), "the other sizes are served by the graph"
