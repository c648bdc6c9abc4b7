"""When a graph computes what its module does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..operators import CONVOLUTION, LINEAR
from .roles import has_role

ROUNDING = 0.02
ROUNDED = "differs by rounding"
"""Key in a graph's `meta`: its passes were compared one by one, each from the same INT8 values, because differences add up over its layers."""
_LAYERS = 16


def agree(found: Any, expected: list[Tensor], tolerance: float = 0.0) -> bool:
    """Equal to the bit, or with a tolerance: shapes equal and root mean square error within that share of the values' own.

    A rewrite may round an activation differently and so move a value to the next of 256 steps; a wrong one is off by far more.
    """
    if len(found) != len(expected) or any(f.shape != e.shape for f, e in zip(found, expected, strict=True)):
        return False
    if tolerance == 0.0:
        return all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    for f, e in zip(found, expected, strict=True):
        error = (f.double() - e.double()).square().mean().sqrt()
        size = e.double().square().mean().sqrt()
        if not error <= tolerance * size + 1e-6:
            return False
    return True


def run_once(graph: fx.GraphModule, tensors: Sequence[Tensor]) -> list[Tensor]:
    """What a graph gives, node by node: writing its Python takes longer than a few runs."""
    run = fx.Interpreter(graph, garbage_collect_values=False)
    run.extra_traceback = False
    return list(run.run(*tensors))


def gives_same_bits(run: Callable[[Sequence[Tensor]], Any], tensors: Sequence[Tensor], expected: list[Tensor]) -> bool:
    """Whether a graph gives what its module gave; one that fails does not."""
    try:
        return agree(run(tensors), expected)
    except Exception:  # made for other sizes, it may index what is not there
        return False


def rounding_tolerance(graph: fx.Graph | fx.GraphModule) -> float:
    """How far rewrites that round may move the results of a block, for `agree`.

    What layers that follow each other round is independent, so that it adds up as the root of their number does: a batch norm folded
    into each of 52 convolutions (the encoder of a ResNet-50) moves the result by 0.022 of its size, into 10 to 19 by at most 0.010. GELU's
    polynomial in each of the twelve layers of a BERT-base (72 linears) does by 0.021 where its weights are random, in one by 0.0003.
    """
    nodes = graph.graph.nodes if isinstance(graph, fx.GraphModule) else graph.nodes
    count = sum(has_role(node, CONVOLUTION, LINEAR) for node in nodes)
    return ROUNDING * max(1.0, math.sqrt(count / _LAYERS))
