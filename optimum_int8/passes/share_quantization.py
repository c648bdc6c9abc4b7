"""Quantize a value once for all readers with the same scale and zero point."""

from __future__ import annotations

from torch import fx

from ..fx.rewrite import change, is_call, named, ours, same_constant


def share_quantization(graph_module: fx.GraphModule) -> int:
    """Needs: nothing. Leaves: no two quantizations of one value with equal parameters, and linears that name one node for each parameter. Preserves: bits."""
    count = 0
    kept: list[fx.Node] = []
    for node in list(graph_module.graph.nodes):
        if not is_call(node, ours.quantize.default, ours.quantize_rows.default):
            continue
        first = next((k for k in kept if _equal(graph_module, k, node)), None)
        if first is None:
            kept.append(node)
            continue
        for user in list(node.users):
            if is_call(user, ours.linear.default):  # so that merging sees one scale and zero point
                shared = named(first)
                change(user, **{name: shared.get(name, named(user)[name]) for name in ("scale", "zero_point")})
        _replace(graph_module, node, first)
        count += 1
    return count


def _equal(graph_module: fx.GraphModule, a: fx.Node, b: fx.Node) -> bool:
    if a.target is not b.target or a.args[0] is not b.args[0]:
        return False
    return all(same_constant(graph_module, x, y) for x, y in zip(a.args[1:], b.args[1:], strict=True))


def _replace(graph_module: fx.GraphModule, node: fx.Node, first: fx.Node) -> None:
    if is_call(node, ours.quantize_rows.default):
        items = {item.args[1]: item for item in first.users}
        for item in list(node.users):
            item.replace_all_uses_with(items[item.args[1]])
            graph_module.graph.erase_node(item)
    else:
        node.replace_all_uses_with(first)
    graph_module.graph.erase_node(node)
