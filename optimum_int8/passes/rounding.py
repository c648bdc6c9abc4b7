"""Telling rounding from error: a pass that rounds another way is compared where rounding differences cannot add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..fx.roles import is_quantization
from ..operators import PER_ROW, PER_TENSOR

_STEPS = 1.01
"""Steps of its quantization parameters that a value may move by: rounding differences only move it over the edge to the next one."""

_MEAN_STEPS = 0.05
"""And by how many on average: few values are so close to an edge."""


class Run(fx.Interpreter):
    """A run of a graph that keeps what each quantization gave, by name.

    Args:
        given: what quantizations give here, in place of what they compute: what follows them then starts from the same INT8 values as in another
            run, so that differences do not add up from layer to layer.
    """

    def __init__(self, graph_module: fx.GraphModule, given: Mapping[str, Any] | None = None) -> None:
        super().__init__(graph_module)
        self.given = given or {}
        self.quantized: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """See `fx.Interpreter`."""
        result = super().run_node(n)
        if not is_quantization(n, PER_TENSOR, PER_ROW):
            return result
        qparams = self.fetch_args_kwargs_from_env(n)[0][1:] if is_quantization(n, PER_TENSOR) else result[1:]
        self.quantized[n.name] = (result, qparams)
        return self.given[n.name][0] if n.name in self.given else result


def only_rounds(graph_module: fx.GraphModule, tensors: list[Tensor], reference: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether a graph quantizes the same values as another did, each from the same INT8 values before it, but for the last step.

    Returns:
        That, and what the graph gives from there.

    Args:
        reference: `quantized` of a run of the other graph.
    """
    run = Run(graph_module, reference)
    results = run.run(*tensors)
    common = run.quantized.keys() & reference.keys()
    return bool(common) and all(_next_step(run.quantized[name], reference[name]) for name in common), results


def _next_step(found: Any, expected: Any) -> bool:
    values, scale = _floats(found)
    others, other_scale = _floats(expected)
    if values.shape != others.shape:
        return False
    moved = (values - others).abs() / torch.maximum(scale, other_scale)
    return bool(moved.max() <= _STEPS) and bool(moved.mean() <= _MEAN_STEPS)


def _floats(quantized: Any) -> tuple[Tensor, Tensor]:
    """Values of a static or a per-token quantization in float64, and their step."""
    result, (scale, zero_point) = quantized
    q = result[0] if isinstance(result, tuple) else result
    scale, zero_point = (x.unsqueeze(-1).double() if x.dim() else x.double() for x in (scale, zero_point))
    return (q.double() - zero_point) * scale, scale
