"""Fold activations and residual additions into the convolution that feeds them."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..fx.rewrite import add_call, aten, is_call, is_constant, named, only_user, shape_of
from ..fx.roles import has_role
from ..operators import CONVOLUTION, DEQUANTIZATION

_ACTIVATIONS = {
    aten.relu.default: "relu",
    aten.silu.default: "silu",
    aten.tanh.default: "tanh",
    aten.hardswish.default: "hardswish",
    aten.leaky_relu.default: "leaky_relu",
    aten.gelu.default: "gelu",
}


def fuse_conv(graph_module: fx.GraphModule) -> int:
    """Needs: channels-last operators. Leaves: convolutions with their activation, the addition after it, of float32 or of quantized uint8, and
    the activation after that. Preserves: values up to the activation's polynomial (numerics)."""
    count = 0
    for node in list(graph_module.graph.nodes):
        if is_call(node, *_ACTIVATIONS):
            count += _activation(graph_module, node)
        elif is_call(node, aten.add.Tensor) and node.kwargs.get("alpha", 1) == 1:
            count += _residual(graph_module, node)
    return count


def _activation(graph_module: fx.GraphModule, node: fx.Node) -> int:
    conv = node.args[0]
    if not has_role(conv, CONVOLUTION) or only_user(conv) is not node:
        return 0
    given = named(conv)
    place = "activation" if given["residual"] is None else "final"
    name = _name(node)
    if given[place] != "none" or (name == "leaky_relu" and given["activation"] == "leaky_relu"):
        return 0
    given[place] = name
    if name == "leaky_relu":
        given["slope"] = float(named(node)["negative_slope"])
    _replace(graph_module, node, conv, given)
    return 1


def _name(node: fx.Node) -> str:
    name = _ACTIVATIONS[node.target]  # type: ignore[index]
    return "gelu_tanh" if name == "gelu" and named(node)["approximate"] == "tanh" else name


def _residual(graph_module: fx.GraphModule, node: fx.Node) -> int:
    """The addition goes into the later of two convolutions."""
    sides = [a for a in node.args[:2] if isinstance(a, fx.Node)]
    if len(sides) != 2 or sides[0] is sides[1] or not any(has_role(side, CONVOLUTION) for side in sides):
        return 0
    if shape_of(sides[0]) != shape_of(sides[1]):
        return 0
    order = {n: i for i, n in enumerate(graph_module.graph.nodes)}
    for conv in sorted(sides, key=order.__getitem__, reverse=True):
        if not has_role(conv, CONVOLUTION) or only_user(conv) is not node:
            continue
        given = named(conv)
        other = sides[0] if conv is sides[1] else sides[1]
        if given["residual"] is None and other.meta["val"].dtype == conv.meta["val"].dtype:
            given |= _residual_arguments(other)
            _replace(graph_module, node, conv, given)
            return 1
    return 0


def _residual_arguments(other: fx.Node) -> dict[str, Any]:
    """What a convolution adds: the bytes, where a value was dequantized with constant quantization parameters."""
    if has_role(other, DEQUANTIZATION):
        given = named(other)
        if is_constant(given["scale"]) and is_constant(given["zero_point"]):
            parameters = {"residual_scale": given["scale"], "residual_zero_point": given["zero_point"]}
            return {"residual": given["q"], **parameters}
    return {"residual": other}


def _replace(graph_module: fx.GraphModule, node: fx.Node, old: fx.Node, arguments: dict[str, Any]) -> None:
    """The convolution `old` with these arguments in the place of `node`."""
    with graph_module.graph.inserting_before(node):
        new = add_call(graph_module, old.target, **arguments)
    new.meta["val"] = old.meta["val"]  # sizes as they are named elsewhere
    node.replace_all_uses_with(new)
    graph_module.graph.erase_node(node)
    if not old.users:
        graph_module.graph.erase_node(old)
