"""A number that the result of a linear is multiplied by, into its weight: queries that are scaled before attention, scaled residuals."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import fx

from ..fx.rewrite import add_derived, aten, change, is_call, is_constant, named, only_user
from ..fx.roles import has_role
from ..operators import LINEAR


def fold_scale(graph_module: fx.GraphModule) -> int:
    """Needs: no activations in linears, none merged. Leaves: linears whose scales of the weight and bias hold the positive number that alone read
    them. Preserves: values up to rounding, bits where the number is a power of two."""
    count = 0
    for node in list(graph_module.graph.nodes):
        scaled = only_user(node) if has_role(node, LINEAR) and named(node)["activation"] == "none" else None
        factor = None if scaled is None else _factor(scaled, node)
        if scaled is None or factor is None:
            continue
        given = named(node)
        read = {name: given[name] for name in ("weight_scale", "bias") if given[name] is not None}
        if not all(map(is_constant, read.values())):
            continue
        multiply = functools.partial(torch.mul, other=factor)
        with graph_module.graph.inserting_before(node):
            folded = {name: add_derived(graph_module, f"scaled_{name}", multiply, x) for name, x in read.items()}
        change(node, **folded)
        scaled.replace_all_uses_with(node)
        graph_module.graph.erase_node(scaled)
        count += 1
    return count


def _factor(node: fx.Node, x: fx.Node) -> float | None:
    """The positive number that `node` multiplies `x` by."""
    if is_call(node, aten.mul.Tensor):
        others: list[Any] = [a for a in node.args[:2] if a is not x]
    elif is_call(node, aten.mul.Scalar):
        others = [node.args[1]]
    else:
        return None
    number: Any = others[0] if len(others) == 1 else None
    if type(number) not in (int, float) or node.meta["val"].dtype != torch.float32:
        return None
    return float(number) if math.isfinite(number) and number > 0 else None
