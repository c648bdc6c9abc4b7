"""What runs without its graph is a decoder layer's step, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import Int8Config, kernels, quantize
from optimum_int8.passes import find_blocks


class TwoResults(nn.Module):
    """On images or on sequences: one program with two results, and views around it."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first, self.second = kind(3, 16, 3, padding=1), kind(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.first(x))
        return x, self.second(x)


@pytest.mark.skipif(kernels.library() is None, reason="no native kernels: nothing is lowered")
@pytest.mark.parametrize(("kind", "shape"), [(nn.Conv1d, (2, 3, 12)), (nn.Conv2d, (2, 3, 9, 9))])
def test_a_block_on_images_or_sequences_is_captured(kind: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    model = quantize(nn.Sequential(TwoResults(kind)).eval(), Int8Config(approach="static"), [x], progress=False)
    with torch.no_grad():
        found = model(x)
        expected = TwoResults.forward(model[0], x)
    assert all(map(torch.allclose, found, expected))
    (block,) = [block for block in find_blocks(model).values() if isinstance(block.module, (TwoResults, nn.Sequential))]
    assert list(block.variants.values()) != [] and None not in block.variants.values()
