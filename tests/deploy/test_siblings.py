"""Modules of one model with equal weights and other settings: each keeps its own in a `.pt2`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import optimum_int8
from optimum_int8 import Int8Config, quantize
from optimum_int8.fx import structure_key


class Layer(nn.Module):
    """A linear and a function with settings that are an attribute."""

    def __init__(self, function: Callable[..., Tensor], *arguments: Any, **settings: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.function, self.arguments, self.settings = function, arguments, settings

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x), *self.arguments, **self.settings)


class Attention(nn.Module):
    """Attention with a scale and a direction that stand in a tuple."""

    def __init__(self, scale: float, causal: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 48)
        self.options = (scale, causal)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.linear(x).unsqueeze(1).chunk(3, -1)
        return F.scaled_dot_product_attention(query, key, value, scale=self.options[0], is_causal=self.options[1])[:, 0]


class Pooled(nn.Module):
    """A convolution and a pooling."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d((kernel, kernel), (1, 1), (kernel // 2, kernel // 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x))


def conv(cls: type[nn.Module] = nn.Conv2d, **settings: Any) -> nn.Module:
    """A convolution of 8 channels."""
    return cls(8, 8, **{"kernel_size": 3, "padding": 1, **settings})


SIBLINGS: dict[str, list[nn.Module]] = {
    "stride": [conv(), conv(stride=2)],
    "stride back": [conv(stride=2), conv(), conv(stride=2)],
    "dilation": [conv(), conv(dilation=2, padding=2)],
    "padding": [conv(), conv(padding=2), conv(padding=0)],
    "padding by name": [conv(padding="same"), conv(padding="valid")],
    "axes": [conv(stride=(1, 2)), conv(stride=(2, 1))],
    "groups": [conv(groups=2), conv(groups=4), conv()],
    "Conv1d": [conv(nn.Conv1d), conv(nn.Conv1d, stride=2), conv(nn.Conv1d, dilation=2, padding=2)],
    "pools": [Pooled(3), Pooled(5)],
    "eps": [Layer(F.layer_norm, (16,), eps=1e-5), Layer(F.layer_norm, (16,), eps=1.0)],
    "function": [Layer(F.relu), Layer(F.hardswish), Layer(F.softmax, -1)],
    "scale": [Attention(0.25, False), Attention(4.0, False)],
    "causal": [Attention(0.25, False), Attention(0.25, True)],
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "pools" else n for n in SIBLINGS])
@torch.no_grad()
def test_each_sibling_keeps_its_settings(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    modules = copy.deepcopy(SIBLINGS[name])
    for first, other in itertools.pairwise(modules):
        shapes = {key: value.shape for key, value in first.state_dict().items()}
        if shapes == {key: value.shape for key, value in other.state_dict().items()}:
            other.load_state_dict(first.state_dict())
    shape = {nn.Conv1d: (3, 8, 24), nn.Conv2d: (3, 8, 14, 14), Pooled: (3, 8, 14, 14)}.get(type(modules[0]), (3, 7, 16))
    x = torch.randn(shape)
    model = nn.Sequential(*modules).eval()
    int8 = quantize(model, Int8Config(), progress=False)
    expected = quantize(model, Int8Config(fuse=False), progress=False)(x)
    found = int8(x)
    assert found.shape == model(x).shape
    assert (found - expected).norm() <= 0.02 * expected.norm()
    optimum_int8.save(int8, tmp_path / "model.pt2", x)
    assert torch.equal(optimum_int8.load(tmp_path / "model.pt2")(x), found)


@pytest.mark.parametrize("name", [name for name in SIBLINGS if name != "stride back"])
def test_siblings_with_other_settings_share_no_graph(name: str) -> None:
    int8 = quantize(nn.Sequential(*SIBLINGS[name]), Int8Config(), progress=False)
    keys = [structure_key(module) for module in int8]
    assert len(set(keys)) == len(keys)


def test_siblings_with_equal_settings_share_a_graph() -> None:
    int8 = quantize(
        nn.Sequential(*(conv(stride=2) for _ in range(3)), Pooled(3), Pooled(3)), Int8Config(), progress=False
    )
    keys = [structure_key(module) for module in int8]
    assert len(set(keys)) == 2
