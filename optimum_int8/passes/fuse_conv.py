"""Fold activations and residual additions into the convolution that feeds them."""

from __future__ import annotations

from torch import fx

from ..fx.rewrite import add_call, arguments, aten, is_call, is_constant, only_user, ours, shape_of

_ACTIVATIONS = {
    aten.relu.default: "relu",
    aten.silu.default: "silu",
    aten.tanh.default: "tanh",
    aten.hardswish.default: "hardswish",
    aten.leaky_relu.default: "leaky_relu",
    aten.gelu.default: "gelu",
}
_ACTIVATION, _SLOPE, _RESIDUAL, _FINAL = 9, 10, 11, 12  # among the arguments
RESIDUAL_GRID = 13
"""Where that of the residual begins among the arguments of `conv`; the result's own stands before it."""


def fuse_conv(graph_module: fx.GraphModule) -> int:
    """Needs: channels-last operators. Leaves: convolutions with their activation, the addition after it, of float32 or of uint8 on a grid, and
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
    if not is_call(conv, ours.conv.default) or only_user(conv) is not node:  # type: ignore[arg-type]
        return 0
    values = arguments(conv)  # type: ignore[arg-type]
    place = _ACTIVATION if values[_RESIDUAL] is None else _FINAL
    name = _name(node)
    if values[place] != "none" or (name == "leaky_relu" and "leaky_relu" in values):
        return 0
    values[place] = name
    if name == "leaky_relu":
        values[_SLOPE] = float(arguments(node)[1])
    _put(graph_module, node, values)
    return 1


def _name(node: fx.Node) -> str:
    name = _ACTIVATIONS[node.target]  # type: ignore[index]
    return "gelu_tanh" if name == "gelu" and arguments(node)[1] == "tanh" else name


def _residual(graph_module: fx.GraphModule, node: fx.Node) -> int:
    """The addition goes into the later of two convolutions."""
    sides = [a for a in node.args[:2] if isinstance(a, fx.Node)]
    if len(sides) != 2 or sides[0] is sides[1] or not any(is_call(side, ours.conv.default) for side in sides):
        return 0
    if shape_of(sides[0]) != shape_of(sides[1]):
        return 0
    order = {n: i for i, n in enumerate(graph_module.graph.nodes)}
    for conv in sorted(sides, key=order.__getitem__, reverse=True):
        if not is_call(conv, ours.conv.default) or only_user(conv) is not node:
            continue
        values = arguments(conv)
        other = sides[0] if conv is sides[1] else sides[1]
        if values[_RESIDUAL] is None and other.meta["val"].dtype == conv.meta["val"].dtype:
            values[_RESIDUAL] = other
            if is_call(other, ours.dequantize.default) and all(map(is_constant, other.args[1:])):
                values[_RESIDUAL], *values[RESIDUAL_GRID:] = other.args
            _put(graph_module, node, values)
            return 1
    return 0


def _put(graph_module: fx.GraphModule, node: fx.Node, values: list[object]) -> None:
    """A convolution with these arguments in the place of `node`."""
    old = next(n for n in node.all_input_nodes if is_call(n, ours.conv.default) and n.args[0] is values[0])
    with graph_module.graph.inserting_before(node):
        new = add_call(graph_module, ours.conv.default, *values)
    new.meta["val"] = old.meta["val"]  # sizes as they are named elsewhere
    node.replace_all_uses_with(new)
    graph_module.graph.erase_node(node)
    if not old.users:
        graph_module.graph.erase_node(old)
