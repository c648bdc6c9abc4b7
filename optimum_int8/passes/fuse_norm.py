"""Fold a residual addition into the norm that follows it; lower the rest of the norms and residual additions to the same operator."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx

from ..fx.rewrite import add_call, add_derived, aten, both_orders, is_call, named, only_user, ours, shape_of
from ..fx.roles import has_role
from ..operators import LINEAR


def fuse_norm(graph_module: fx.GraphModule) -> int:
    """Needs: no dropout between. Leaves: `norm` for layer norm and RMS norm over the last axis, with the addition before it if only the norm
    reads the sum. Preserves: values up to the order of a row's sum."""
    count = 0
    for node in list(graph_module.graph.nodes):
        described = describe_norm(graph_module, node)
        if described is None:
            continue
        x, weight, bias, kind, eps = described
        first, residual = _addends(x) or (x, None)
        with graph_module.graph.inserting_before(node):
            new = add_call(graph_module, ours.norm.default, first, residual, weight, bias, kind, eps)
        node.replace_all_uses_with(new)
        graph_module.graph.erase_node(node)
        count += 1
    for node in list(graph_module.graph.nodes):
        if (
            node.users
            and _is_sum(node)
            and any(has_role(a, LINEAR) or is_call(a, ours.norm.default) for a in node.args[:2])
        ):
            with graph_module.graph.inserting_before(node):
                new = add_call(graph_module, ours.norm.default, node.args[0], node.args[1], None, None, "none", 0.0)
            node.replace_all_uses_with(new)
            graph_module.graph.erase_node(node)
            count += 1
    return count


class Norm(NamedTuple):
    """A layer norm or RMS norm (`kind`) over the last axis of `x`."""

    x: fx.Node
    weight: fx.Node | None
    bias: fx.Node | None
    kind: str
    eps: float


def describe_norm(graph_module: fx.GraphModule, node: fx.Node) -> Norm | None:
    """The norm that `node` computes, None where it computes something else; a weight that is stored less one is made whole."""
    if is_call(node, aten.layer_norm.default):
        kind = "layer_norm"
    elif is_call(node, aten.rms_norm.default):
        kind = "rms_norm"
    else:
        return _written_out(graph_module, node)
    given = named(node)
    x = given["input"]
    shape = given["normalized_shape"]
    eps = given["eps"]
    weight = given["weight"]
    bias = given.get("bias")
    fits = len(shape) == 1 and eps is not None and len(shape_of(x)) > 1 and x.meta["val"].dtype == torch.float32
    return Norm(x, weight, bias, kind, eps) if fits else None


def _written_out(graph_module: fx.GraphModule, node: fx.Node) -> Norm | None:
    """RMS norm as models write it: `weight * (x * rsqrt(mean(x ** 2, -1, keepdim) + eps))`, or `1 + weight` for the weight."""
    for weight, scaled in both_orders(node, aten.mul.Tensor):
        stored = _less_one(weight) or weight
        if stored.op != "get_attr" or len(shape_of(stored)) != 1:
            continue
        for x, factor in both_orders(scaled, aten.mul.Tensor):
            eps = _inverse_root_of_mean_square(factor, x)
            floats = x.meta["val"].dtype == weight.meta["val"].dtype == torch.float32
            if eps is not None and floats and len(shape_of(x)) > 1 and shape_of(x)[-1] == shape_of(weight)[0]:
                whole = weight if stored is weight else _plus_one(graph_module, stored, node)
                return Norm(x, whole, None, "rms_norm", eps)
    return None


def _less_one(node: fx.Node) -> fx.Node | None:
    """What `node` adds one to."""
    if not is_call(node, aten.add.Tensor) or node.kwargs.get("alpha", 1) != 1:
        return None
    first, second = node.args[:2]
    if second == 1 and isinstance(first, fx.Node):
        return first
    return second if first == 1 and isinstance(second, fx.Node) else None


def _plus_one(graph_module: fx.GraphModule, weight: fx.Node, before: fx.Node) -> fx.Node:
    with graph_module.graph.inserting_before(before):
        return add_derived(graph_module, "norm_weight", lambda stored: stored + 1.0, weight)


def _inverse_root_of_mean_square(node: fx.Node, x: fx.Node) -> float | None:
    """eps, where `node` is `rsqrt(mean(x ** 2, -1, keepdim) + eps)`."""
    total: Any = node.args[0] if is_call(node, aten.rsqrt.default) else None
    if not is_call(total, aten.add.Tensor) or not isinstance(total.args[1], float):
        return None
    mean: Any = total.args[0]
    square: Any = mean.args[0] if is_call(mean, aten.mean.dim) and list(mean.args[1:3]) == [[-1], True] else None
    is_square = is_call(square, aten.pow.Tensor_Scalar) and square.args[1] == 2 and square.args[0] is x
    return total.args[1] if is_square else None


def _is_sum(node: fx.Node) -> bool:
    if not is_call(node, aten.add.Tensor) or node.kwargs.get("alpha", 1) != 1:
        return False
    a, b = node.args[:2]
    if not (isinstance(a, fx.Node) and isinstance(b, fx.Node)):
        return False
    shapes = [shape_of(n) for n in (a, b)]
    floats = all(n.meta["val"].dtype == torch.float32 for n in (a, b))
    return floats and shapes[0] == shapes[1] and len(shapes[0]) > 1


def _addends(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The two sides of a sum that only this norm reads."""
    if not _is_sum(node) or only_user(node) is None:
        return None
    return node.args[0], node.args[1]  # type: ignore[return-value]
