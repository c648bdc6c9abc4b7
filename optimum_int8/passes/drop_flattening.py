"""Views that join batch and length before what works row by row, and part them again: a feed-forward on `[tokens, width]`."""

from __future__ import annotations

import operator as python_operator
from typing import Any

from torch import fx

from ..fx.rewrite import aten, is_call, is_constant, is_last_axis, named, shape_of
from ..fx.roles import called
from ..operators import ROWS

_ELEMENTWISE = (
    aten.relu.default,
    aten.gelu.default,
    aten.silu.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.rsqrt.default,
    aten.neg.default,
    aten.pow.Tensor_Scalar,
    aten.to.dtype,
)
_WITH_ANOTHER = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)


def drop_flattening(graph_module: fx.GraphModule) -> int:
    """Needs: no casts to a value's own dtype. Leaves: what works row by row with the axes of the value that was flattened before it, where all
    of it is viewed with these axes again. Preserves: bits."""
    count = 0
    for node in list(graph_module.graph.nodes):
        if node.users and _flattens(node):  # not erased together with another
            count += _rewrite(graph_module, node)
    return count


def _flattens(node: fx.Node) -> bool:
    if not is_call(node, aten.view.default, aten.reshape.default) or len(shape_of(node)) != 2:
        return False
    given = shape_of(named(node)["self"])
    return len(given) > 2 and type(given[-1]) is int and given[-1] == shape_of(node)[-1]


def _rewrite(graph_module: fx.GraphModule, view: fx.Node) -> bool:
    lead = shape_of(named(view)["self"])[:-1]
    flat = shape_of(view)[0]
    entries = {view}
    inside: dict[fx.Node, None] = {}
    exits: list[fx.Node] = []
    nodes = list(graph_module.graph.nodes)
    for node in nodes[nodes.index(view) + 1 :]:
        if _flattens(node) and shape_of(named(node)["self"])[:-1] == lead:
            entries.add(node)
            continue
        if not any(source in inside or source in entries for source in node.all_input_nodes):
            continue
        if _parts(node, lead):
            exits.append(node)
        elif _is_of_rows(node, {*inside, *entries}, flat):
            inside[node] = None
        else:
            return False
    if not inside or not exits:
        return False
    for node in inside:
        _part(node, lead)
    for node in (*entries, *exits):
        if node.users:
            node.replace_all_uses_with(named(node)["self"])
        graph_module.graph.erase_node(node)
    return True


def _parts(node: fx.Node, lead: tuple[Any, ...]) -> bool:
    """Whether a view gives rows these axes."""
    if not is_call(node, aten.view.default, aten.reshape.default):
        return False
    return shape_of(node) == (*lead, shape_of(named(node)["self"])[-1])


def _is_of_rows(node: fx.Node, known: set[fx.Node], flat: Any) -> bool:
    """Whether `node` computes each row of its result from the same row of values that are `known`, and from constants."""
    if node.op != "call_function":
        return False
    if is_call(node, python_operator.getitem):
        return node.args[0] in known
    value = node.meta["val"]
    shapes = [tuple(v.shape) for v in (value if isinstance(value, tuple) else (value,))]
    if any(not shape or shape[0] != flat for shape in shapes):
        return False
    if not all(source in known or is_constant(source) for source in node.all_input_nodes):
        return False
    operator = called(node)
    given = named(node)
    if operator is not None:
        values = [given[name] for name in operator.values if isinstance(given[name], fx.Node)]
        return ROWS in operator.domains and not operator.keys and values[0] in known and "ids" not in given
    if any(len(shape) != 2 for shape in shapes):
        return False
    if is_call(node, aten.layer_norm.default, aten.rms_norm.default):
        return given["input"] in known and len(given["normalized_shape"]) == 1
    if is_call(node, aten.slice.Tensor):
        return is_last_axis(given["dim"], given["self"])
    if is_call(node, aten.mean.dim):
        return list(given["dim"]) == [-1] and bool(given["keepdim"])
    if is_call(node, *_WITH_ANOTHER):
        factors = [a for a in node.args[:2] if isinstance(a, fx.Node)]
        return any(a in known for a in factors) and all(a in known or len(shape_of(a)) < 2 for a in factors)
    return is_call(node, *_ELEMENTWISE) and node.args[0] in known


def _part(node: fx.Node, lead: tuple[Any, ...]) -> None:
    """Give the results of `node` these axes in the place of their first."""
    if is_call(node, aten.slice.Tensor):
        node.update_arg(1, -1)
    value = node.meta["val"]
    parts = [
        v.new_empty((*lead, *tuple(v.shape)[1:]), v.dtype) for v in (value if isinstance(value, tuple) else (value,))
    ]
    node.meta["val"] = tuple(parts) if isinstance(value, tuple) else parts[0]
