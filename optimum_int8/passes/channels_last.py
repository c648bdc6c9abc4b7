"""Operators between convolutions work channels-last, as convolutions do, so that adjacent transposes cancel."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..fx.rewrite import add_call, aten, is_call, named, only_user, ours, shape_of
from ..fx.roles import is_elementwise
from ..numerics import pool_window

TO_LAST = [0, 2, 3, 1]
TO_FIRST = [0, 3, 1, 2]
ACTIVATIONS = {
    aten.relu.default: aten.relu.default,
    aten.relu_.default: aten.relu.default,
    aten.silu.default: aten.silu.default,
    aten.silu_.default: aten.silu.default,
    aten.hardswish.default: aten.hardswish.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.leaky_relu.default: aten.leaky_relu.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.gelu.default: aten.gelu.default,
}
"""What follows a convolution, also in place, and the same not in place."""

_ELEMENTWISE = {
    **ACTIVATIONS,
    aten.tanh.default: aten.tanh.default,
    aten.add.Tensor: aten.add.Tensor,
    aten.add_.Tensor: aten.add.Tensor,
}
_IN_PLACE = tuple(operator for operator, plain in _ELEMENTWISE.items() if operator is not plain)


def channels_last(graph_module: fx.GraphModule) -> int:
    """Needs: nothing. Leaves: elementwise operators, concatenations of channels and max pooling on `[batch, height, width, channels]`, and no transpose forth and back.
    Preserves: bits."""
    count = 0
    for node in list(graph_module.graph.nodes):
        if is_call(node, *_ELEMENTWISE):
            count += _elementwise(graph_module, node)
        elif is_elementwise(node):
            count += _value_by_value(graph_module, node)
        elif is_call(node, aten.cat.default):
            count += _cat(graph_module, node)
        elif is_call(node, aten.max_pool2d.default):
            count += _max_pool(graph_module, node)
        elif is_call(node, aten.permute.default, aten.unsqueeze.default):
            count += _cancel(graph_module, node)
    return count


def _elementwise(graph_module: fx.GraphModule, node: fx.Node) -> int:
    inputs = [a for a in node.args if isinstance(a, fx.Node)]
    if not any(_is_first(x) for x in inputs) or any(shape_of(x) != shape_of(node) for x in inputs):
        return _below_squeeze(graph_module, node, inputs)
    if is_call(node, *_IN_PLACE) and only_user(inputs[0]) is not node:
        return 0
    graph = graph_module.graph
    with graph.inserting_before(node):
        args: list[Any] = [_last(graph, a) if isinstance(a, fx.Node) else a for a in node.args]
        new = graph.call_function(_ELEMENTWISE[node.target], tuple(args), dict(node.kwargs))  # type: ignore[index]
        new.meta["val"] = args[0].meta["val"].new_empty(shape_of(args[0]), node.meta["val"].dtype)
        _replace(graph, node, new)
    return 1


def _value_by_value(graph_module: fx.GraphModule, node: fx.Node) -> int:
    """Operators of ours, which take scales and zero points besides the values."""
    values = [a for a in node.args if isinstance(a, fx.Node) and shape_of(a)]
    if not any(_is_first(x) for x in values) or any(shape_of(x) != shape_of(node) for x in values):
        return 0
    graph = graph_module.graph
    with graph.inserting_before(node):
        new = add_call(graph_module, node.target, *[_last(graph, a) if a in values else a for a in node.args])  # type: ignore[arg-type]
        _replace(graph, node, new)
    return 1


def _cat(graph_module: fx.GraphModule, node: fx.Node) -> int:
    """Along the channels."""
    parts, axis = named(node).values()
    if axis not in (1, -3) or not all(len(shape_of(x)) == 4 for x in parts) or not any(map(_is_first, parts)):
        return 0
    graph = graph_module.graph
    shape = shape_of(node)
    with graph.inserting_before(node):
        new = graph.call_function(aten.cat.default, ([_last(graph, x) for x in parts], 3))
        new.meta["val"] = node.meta["val"].new_empty([shape[i] for i in TO_LAST], node.meta["val"].dtype)
        _replace(graph, node, new)
    return 1


def _below_squeeze(graph_module: fx.GraphModule, node: fx.Node, inputs: list[fx.Node]) -> int:
    """Over a sequence, the axis of height 1 is squeezed after each convolution: squeeze after the operator instead. A sum may have one
    input of another kind."""
    source = next((x for x in inputs if is_call(x, aten.squeeze.dim) and _is_first(x.args[0])), None)
    if source is None or any(shape_of(x) != shape_of(node) for x in inputs):
        return 0
    if is_call(node, *_IN_PLACE) and only_user(inputs[0]) is not node:
        return 0
    graph = graph_module.graph
    axis = source.args[1]
    with graph.inserting_before(node):
        args = [_unsqueezed(graph, a, axis, source) if isinstance(a, fx.Node) else a for a in node.args]
        new = graph.call_function(_ELEMENTWISE[node.target], tuple(args), dict(node.kwargs))  # type: ignore[index]
        new.meta["val"] = source.args[0].meta["val"]  # type: ignore[union-attr]
        out = graph.call_function(aten.squeeze.dim, (new, axis))
        out.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(out)
    graph.erase_node(node)
    for x in dict.fromkeys(inputs):
        if is_call(x, aten.squeeze.dim) and not x.users:
            graph.erase_node(x)
    return 1 + _elementwise(graph_module, new)


def _unsqueezed(graph: fx.Graph, node: fx.Node, axis: Any, source: fx.Node) -> fx.Node:
    """A node with the axis that `source` squeezes."""
    if is_call(node, aten.squeeze.dim) and node.args[1] == axis:
        return node.args[0]  # type: ignore[return-value]
    new = graph.call_function(aten.unsqueeze.default, (node, axis))
    new.meta["val"] = source.args[0].meta["val"]  # type: ignore[union-attr]
    return new


def _max_pool(graph_module: fx.GraphModule, node: fx.Node) -> int:
    given = named(node)
    x = given["self"]
    kernel = given["kernel_size"]
    stride = given["stride"] or kernel
    window = pool_window(kernel, stride, given["padding"], given["dilation"], bool(given["ceil_mode"]))
    if not _is_first(x) or window is None:
        return 0
    with graph_module.graph.inserting_before(node):
        new = add_call(graph_module, ours.max_pool.default, x.args[0], list(window))
        shape = shape_of(node)
        new.meta["val"] = node.meta["val"].new_empty([shape[i] for i in TO_LAST], node.meta["val"].dtype)
        _replace(graph_module.graph, node, new)
    return 1


def _cancel(graph_module: fx.GraphModule, node: fx.Node) -> int:
    """A transpose back to where its input came from; the second of two equal transposes."""
    source = node.args[0]
    back = _is_last(node) and _is_first(source)
    unsqueezed = is_call(node, aten.unsqueeze.default) and is_call(source, aten.squeeze.dim)
    if back or (unsqueezed and node.args[1] == source.args[1]):  # type: ignore[union-attr]
        node.replace_all_uses_with(source.args[0])  # type: ignore[union-attr, arg-type]
        graph_module.graph.erase_node(node)
        return 1
    equal = next((u for u in source.users if u.target is node.target and u.args == node.args), node)  # type: ignore
    if equal is node or not _is_last(node):
        return 0
    node.replace_all_uses_with(equal)
    graph_module.graph.erase_node(node)
    return 1


def _is_first(node: Any) -> bool:
    """Whether a node lays out channels-last values as torch does."""
    return is_call(node, aten.permute.default) and list(named(node)["dims"]) == TO_FIRST


def _is_last(node: Any) -> bool:
    return is_call(node, aten.permute.default) and list(named(node)["dims"]) == TO_LAST


def _last(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """The channels-last view of a node, which stands before the insertion point."""
    if _is_first(node):
        return node.args[0]  # type: ignore[return-value]
    return _permute(graph, node, TO_LAST)


def _permute(graph: fx.Graph, node: fx.Node, order: list[int]) -> fx.Node:
    new = graph.call_function(aten.permute.default, (node, order))
    value = node.meta["val"]
    new.meta["val"] = value.new_empty([value.shape[i] for i in order], value.dtype)
    return new


def _replace(graph: fx.Graph, node: fx.Node, new: fx.Node) -> None:
    out = _permute(graph, new, TO_FIRST)
    out.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(out)
    graph.erase_node(node)
