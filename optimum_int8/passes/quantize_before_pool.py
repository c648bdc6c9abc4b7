"""Quantize before a max pooling what it and its reader would quantize after it: the operator that makes the value may then write uint8."""

from __future__ import annotations

from torch import fx

from ..fx.rewrite import add_call, is_call, named, only_user, ours
from ..fx.roles import is_quantization, quantize_as
from ..operators import PER_TENSOR


def quantize_before_pool(graph_module: fx.GraphModule) -> int:
    """Needs: channels-last operators. Leaves: max pooling on uint8 where only a quantization reads it. Preserves: bits.

    Quantization is monotone, so that it may be done before a maximum.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        while is_quantization(node, PER_TENSOR):
            pool = named(node)["x"]
            if not is_call(pool, ours.max_pool.default) or only_user(pool) is not node:
                break
            node = _move(graph_module, node, pool)
            count += 1
    return count


def _move(graph_module: fx.GraphModule, node: fx.Node, pool: fx.Node) -> fx.Node:
    """The quantization before `pool`."""
    with graph_module.graph.inserting_before(node):
        before = quantize_as(graph_module, node, named(pool)["x"])
        after = add_call(graph_module, ours.max_pool.default, before, named(pool)["window"])
        after.meta["val"] = node.meta["val"]  # sizes as they are named elsewhere
    node.replace_all_uses_with(after)
    graph_module.graph.erase_node(node)
    graph_module.graph.erase_node(pool)
    return before
