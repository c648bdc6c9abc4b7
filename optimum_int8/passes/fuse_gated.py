"""Gated activations (SwiGLU, GeGLU) as one operator."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import fx

from ..fx.rewrite import add_call, aten, drop_dead, is_call, is_last_axis, named, only_user, ours, shape_of
from ..fx.roles import has_role
from ..operators import LINEAR
from .fuse_activation import activation_of


def fuse_gated(graph_module: fx.GraphModule) -> int:
    """Needs: no activations in linears. Leaves: `gated` for `activation(gate) * up`, where `gate` and `up` are linears or columns of one.
    Preserves: values up to the activation's polynomial (numerics)."""
    count = 0
    for gate in list(graph_module.graph.nodes):
        if _comes_from_linear(gate) and len(shape_of(gate)) > 1:
            count += _rewrite(graph_module, gate)
    return count


def _rewrite(graph_module: fx.GraphModule, gate: fx.Node) -> bool:
    found = activation_of(gate)
    product = None if found is None else only_user(found.last)
    if found is None or not is_call(product, aten.mul.Tensor):
        return False
    factors = [a for a in product.args[:2] if a is not found.last]
    up = factors[0] if len(factors) == 1 else None
    if not _comes_from_linear(up) or shape_of(up) != shape_of(gate) or gate.meta["val"].dtype != torch.float32:
        return False
    with graph_module.graph.inserting_before(product):
        new = add_call(graph_module, ours.gated.default, gate, up, found.name)
    product.replace_all_uses_with(new)
    graph_module.graph.erase_node(product)
    drop_dead(graph_module.graph)
    return True


def _comes_from_linear(node: object) -> TypeGuard[fx.Node]:
    """Whether a value is computed by a linear, or is some of its columns."""
    if is_call(node, aten.slice.Tensor):
        x = named(node)["self"]
        node = x if is_last_axis(named(node)["dim"], x) else None
    return has_role(node, LINEAR) and named(node)["activation"] == "none"
