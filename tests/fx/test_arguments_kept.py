"""What a module writes to its arguments happens once, whatever a block tries on the way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from optimum_int8.passes import install
from tests.fx.toys import int8_linear


class Writes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = int8_linear()


class Adds(Writes):
    def forward(self, x: Tensor, other: Any = None) -> Tensor:
        x.add_(1.0)
        return self.linear(x)


class Part(Writes):
    def forward(self, x: Tensor, other: Any = None) -> Tensor:
        x[:, 0] *= 2
        return self.linear(x)


class Same(Writes):
    """A second time changes nothing, so that a graph seems to agree; whoever called reads what was written."""

    def forward(self, x: Tensor, other: Any = None) -> Tensor:
        return self.linear(torch.relu_(x))


class Mask(Writes):
    def forward(self, x: Tensor, other: Any = None) -> Tensor:
        return self.linear(x) * other.mul_(2.0)


class Appends(Writes):
    def forward(self, x: Tensor, other: Any = None) -> Tensor:
        other.append(x)
        return self.linear(x) * len(other)


@pytest.mark.parametrize("inference", [False, True], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("make", [Adds, Part, Same, Mask, Appends])
def test_arguments_are_written_once(make: type[nn.Module], inference: bool) -> None:
    module = make()
    own = copy.deepcopy(module)
    install(nn.ModuleDict({"module": module}).eval())
    with torch.inference_mode(inference), torch.no_grad():
        for _ in range(3):
            x = torch.randn(2, 6, 16)
            other: Any = [x] if make is Appends else torch.ones(2, 6, 1)
            kept, others = x.clone(), list(other) if make is Appends else other.clone()
            assert torch.equal(module(x, other), own(kept, others))
            assert torch.equal(x, kept)
            if make is Appends:
                assert len(other) == len(others)
            else:
                assert torch.equal(other, others)


class Halving(DynamicCache):
    """Stores in a way of its own."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        return super().update(key_states * 0.5, value_states, layer_idx, *args, **kwargs)


class Extended(DynamicCache):
    """Has a method of its own, as MiniMax's has."""

    def extra(self, layer: int) -> float:
        return 2.0


class Attends(Writes):
    layer_idx = 0

    def forward(self, x: Tensor, cache: Any) -> Tensor:
        keys = self.linear(x)[:, None]
        factor = cache.extra(0) if isinstance(cache, Extended) else 1.0
        keys, values = cache.update(keys, keys, 0)
        return (keys * factor + values).sum(2)


@pytest.mark.parametrize("kind", [Halving, Extended, DynamicCache])
def test_a_cache_of_its_own_class_is_updated_by_itself(kind: type[DynamicCache]) -> None:
    module = Attends()
    own = copy.deepcopy(module)
    install(nn.ModuleDict({"module": module}).eval())
    cache, expected = kind(), kind()
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(2, 6, 16)
            assert torch.equal(module(x, cache), own(x, expected))
            assert torch.equal(cache.layers[0].keys, expected.layers[0].keys)
