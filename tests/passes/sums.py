"""Small networks with sums and concatenations on INT8 for the passes, captured; see `graphs`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optimum_int8.nn import Int8Add, Int8Cat
from tests.passes.graphs import WIDTH, Case, linear
from tests.passes.images import conv, image

GRIDS = ((0.031, 128), (0.0071, 3), (0.02, 90))


def added(output: bool = False, quantized: tuple[bool, bool] = (True, True)) -> Int8Add:
    return _with_grids(Int8Add(quantized, output))


def joined(inputs: int = 2, output: bool = False) -> Int8Cat:
    return _with_grids(Int8Cat([True] * inputs, output))


def _with_grids(call: Any) -> Any:
    for i, quantized in enumerate(call.inputs_quantized):
        if quantized:
            call.set_qparams(f"input{i}", *GRIDS[i])
    if call.output_quantized:
        call.set_qparams("output", *GRIDS[2])
    return call


def sums(output: bool = False) -> Case:
    """Tokens: the sum of two linears, and it beside one of them, into linears."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y, z = m.a(x), m.b(x)
        total = m.add(y, z)
        return m.d(m.cat((m.c(total), torch.relu(m.e(x))), -1))

    parts = {"a": linear(high=2.0), "b": linear(high=2.5), "c": linear(outer=32), "e": linear(outer=96)}
    return Case(forward, add=added(output), cat=joined(2, output), d=linear(128, WIDTH), **parts)


def images(output: bool = False) -> Case:
    """Channels first, as torch has them: a sum, a concatenation of INT8 and one of floats."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = torch.relu(m.a(x))
        z = m.add(y, m.b(x))
        w = m.d(m.cat([m.c(z), y], 1))
        return m.f(torch.cat([w, torch.relu(m.e(x)), w], dim=1))

    parts = {"a": conv(8, 16), "b": conv(8, 16, 1), "c": conv(16, 12), "d": conv(28, 10, 1), "e": conv(8, 33, 1)}
    return Case(forward, image(), add=added(output), cat=joined(2, output), f=conv(53, 4), **parts)


SUM_CASES = {
    f"{name} {'on a grid of their own' if output else 'on the readers grid'}": (lambda m=make, o=output: m(o))
    for name, make in {"sums": sums, "images": images}.items()
    for output in (False, True)
}
