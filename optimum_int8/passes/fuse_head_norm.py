"""Norms of each head of queries or keys as an operator on rows."""

from __future__ import annotations

from torch import fx

from ..fx.rewrite import add_call, ours
from .fuse_norm import describe_norm
from .heads import heads_of, split_again


def fuse_head_norm(graph_module: fx.GraphModule) -> int:
    """Needs: no casts between. Leaves: `head_norm` on rows for a norm over heads that a view cut from them, before or after heads and
    lengths were exchanged. Preserves: values up to the order of a head's sum."""
    count = 0
    for node in list(graph_module.graph.nodes):
        described = describe_norm(graph_module, node)
        cut = None if described is None else heads_of(described.x)
        if described is None or cut is None:
            continue
        _, weight, bias, kind, eps = described
        with graph_module.graph.inserting_before(node):
            rows = add_call(graph_module, ours.head_norm.default, cut.rows, weight, bias, cut.heads, kind, eps)
            node.replace_all_uses_with(split_again(graph_module, rows, cut))
        graph_module.graph.erase_node(node)
        count += 1
    return count
