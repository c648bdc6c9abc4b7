"""Quantize a value once for all readers with the same scale and zero point."""

from __future__ import annotations

from torch import fx

from ..fx.rewrite import change, named, replace_results, same_constant
from ..fx.roles import has_role, is_quantization
from ..operators import LINEAR, PER_ROW, PER_TENSOR


def share_quantization(graph_module: fx.GraphModule) -> int:
    """Needs: nothing. Leaves: no two quantizations of one value with equal parameters, and linears that name one node for each parameter. Preserves: bits."""
    count = 0
    kept: list[fx.Node] = []
    for node in list(graph_module.graph.nodes):
        if not is_quantization(node, PER_TENSOR, PER_ROW):
            continue
        first = next((k for k in kept if _equal(graph_module, k, node)), None)
        if first is None:
            kept.append(node)
            continue
        for user in list(node.users):
            if has_role(user, LINEAR):  # so that merging sees one scale and zero point
                shared = named(first)
                change(user, **{name: shared.get(name, named(user)[name]) for name in ("scale", "zero_point")})
        replace_results(graph_module, node, _results(first))
        count += 1
    return count


def _equal(graph_module: fx.GraphModule, a: fx.Node, b: fx.Node) -> bool:
    if a.target is not b.target or a.args[0] is not b.args[0]:
        return False
    return all(same_constant(graph_module, x, y) for x, y in zip(a.args[1:], b.args[1:], strict=True))


def _results(node: fx.Node) -> list[fx.Node]:
    """What a quantization gives: itself, or the items of its several results."""
    if not isinstance(node.meta["val"], tuple):
        return [node]
    items = {item.args[1]: item for item in node.users}
    return [items[i] for i in range(len(items))]
