"""The order of a graph's nodes: what is no operator of ours stands where it is needed, so that more operators follow each other."""

from __future__ import annotations

import operator as python_operator

from torch import fx

from ..fx.rewrite import is_call
from ..operators import operator_of
from ..torch_private import OpOverload


def delay_others(graph_module: fx.GraphModule) -> None:
    """Move what torch computes right before its first reader, in place: a view of what a program computes would end it."""
    nodes = list(graph_module.graph.nodes)
    if any(_writes(node) for node in nodes):
        return  # a reader must not move past what overwrites its argument
    place = {node: position for position, node in enumerate(nodes)}
    waiting = {node for node in nodes if _may_wait(node)}
    for node in nodes:
        if node not in waiting and not _may_wait(node):
            for needed in sorted(_needed(node, waiting), key=place.__getitem__):
                node.prepend(needed)
                waiting.discard(needed)


def _needed(node: fx.Node, waiting: set[fx.Node]) -> set[fx.Node]:
    """Nodes among those that wait which `node` reads, directly or through others of them."""
    found: set[fx.Node] = set()
    new = [source for source in node.all_input_nodes if source in waiting]
    while new:
        source = new.pop()
        if source not in found:
            found.add(source)
            new += [earlier for earlier in source.all_input_nodes if earlier in waiting]
    return found


def _may_wait(node: fx.Node) -> bool:
    if node.op != "call_function" or not node.users or operator_of(node.target) is not None:
        return False
    is_item = is_call(node, python_operator.getitem)
    return not (is_item and operator_of(node.args[0].target) is not None)  # type: ignore[union-attr]


def _writes(node: fx.Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, OpOverload) and node.target._schema.is_mutable
