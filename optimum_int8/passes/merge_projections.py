"""One linear for several that read the same quantized value (queries, keys and values)."""

from __future__ import annotations

import torch
from torch import fx

from ..fx.rewrite import add_call, add_columns, add_constant, arguments, is_call, ours, tensor_of
from ..kernels import PANEL


def merge_projections(graph_module: fx.GraphModule) -> int:
    """Needs: shared quantizations. Leaves: one linear per quantized value, cut into columns. Preserves: bits.

    Concatenating outputs is concatenating panels, which needs whole panels: widths that are not a multiple of 32 stay alone.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        group = [u for u in node.users if _mergeable(graph_module, u, node)]
        if len(group) > 1:
            _merge(graph_module, group)
            count += 1
    return count


def _mergeable(graph_module: fx.GraphModule, user: fx.Node, source: fx.Node) -> bool:
    if not is_call(user, ours.linear.default) or user.args[0] is not source:
        return False
    weight_scale = tensor_of(graph_module, user.args[5])
    return weight_scale is not None and weight_scale.shape[0] % PANEL == 0


def _merge(graph_module: fx.GraphModule, group: list[fx.Node]) -> None:
    parts = [[tensor_of(graph_module, a) for a in arguments(node)[3:7]] for node in group]
    widths = [part[2].shape[0] for part in parts]  # type: ignore[union-attr]
    biases = [torch.zeros(width) if part[3] is None else part[3] for part, width in zip(parts, widths, strict=True)]
    order = {node: i for i, node in enumerate(graph_module.graph.nodes)}
    with graph_module.graph.inserting_before(min(group, key=order.__getitem__)):
        weights = [
            add_constant(graph_module, f"merged_{name}", torch.cat([part[i] for part in parts]))  # type: ignore[misc]
            for i, name in enumerate(("panels", "weight_sum", "weight_scale"))
        ]
        has_bias = any(part[3] is not None for part in parts)
        bias = add_constant(graph_module, "merged_bias", torch.cat(biases)) if has_bias else None
        merged = add_call(graph_module, ours.linear.default, *group[0].args[:3], *weights, bias, "none")
        start = 0
        for node, width in zip(group, widths, strict=True):
            piece = add_columns(graph_module, merged, start, start + width)
            node.replace_all_uses_with(piece)
            start += width
    for node in group:
        graph_module.graph.erase_node(node)
