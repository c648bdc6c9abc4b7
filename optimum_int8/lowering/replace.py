"""One node in the place of a segment."""

from __future__ import annotations

import operator

import torch
from torch import fx

from .plan import Result
from .segments import Segment


def replace_segment(
    graph_module: fx.GraphModule,
    segment: Segment,
    name: str,
    call: torch.nn.Module,
    inputs: list[fx.Node],
    results: list[Result],
) -> None:
    """Replace a segment by the module `call`, in place, and its results by those of the module."""
    graph = graph_module.graph
    graph_module.add_submodule(name, call)
    with graph.inserting_after(segment.ordered(graph)[-1]):
        new = at = graph.call_module(name, tuple(inputs))
    for position, result in enumerate(results):
        with graph.inserting_after(at):
            out = graph.call_function(operator.getitem, (new, position)) if len(results) > 1 else new
        at = out
        out.meta["val"] = result.node.meta["val"]
        for user in list(result.node.users):
            if user not in segment.nodes:
                user.replace_input_with(result.node, out)
        for alias in [a for a in segment.aliases if a.args[0] is out]:
            at.append(alias)
            at = alias
    for node in reversed(segment.ordered(graph)):
        if not node.users:
            graph.erase_node(node)
