"""Small modules with INT8 inside, for tests of the mechanism."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from optimum_int8.fx import Backend, Block, Compiler, install_below
from optimum_int8.nn import Int8Conv2d, Int8Linear


def int8_linear(inner: int = 16, outer: int = 16, seed: int = 0, static: bool = True) -> Int8Linear:
    torch.manual_seed(seed)
    return Int8Linear.from_float(nn.Linear(inner, outer).eval(), (-3.0, 3.0) if static else None)


def int8_conv() -> Int8Conv2d:
    torch.manual_seed(0)
    return Int8Conv2d.from_float(nn.Conv2d(3, 4, 3).eval(), (-3.0, 3.0))


class Layer(nn.Module):
    """A residual layer that can be masked; rows of a 3-D input are tokens."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.linear = int8_linear(seed=seed)
        self.calls = 0

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        self.calls += 1
        y = self.linear(x) * scale
        return x + (y if mask is None else y * mask.unsqueeze(-1))


class Stack(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *args, **kwargs)
        return x


def as_captured(graph: fx.GraphModule, tensors: list[Tensor], check: bool) -> fx.GraphModule:
    """A compiler that leaves the graph as it is: results are equal to the bit."""
    return graph


def install(model: nn.Module, compile_: Any = as_captured) -> Compiler:
    compiler = Compiler(Backend(compile_))
    install_below(compiler, model.eval())
    return compiler


def block_of(module: nn.Module) -> Block:
    return vars(module)["forward"]
