"""Remove what does nothing in evaluation: dropout, casts to the same dtype, contiguous copies, metadata assertions. What cuts a value into
pieces becomes one slice for each."""

from __future__ import annotations

import operator

from torch import fx

from ..fx.rewrite import add_columns, aten, is_call, named, shape_of

_CUTS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)
_ASSERTIONS = (aten._assert_tensor_metadata.default, aten._assert_scalar.default, aten._assert_async.msg)


def drop_noops(graph_module: fx.GraphModule) -> int:
    """Needs: a captured graph. Leaves: no dropout, no cast to a value's own dtype, no assertions. Preserves: bits."""
    count = 0
    for node in list(graph_module.graph.nodes):
        if is_call(node, *_ASSERTIONS):
            graph_module.graph.erase_node(node)
        elif is_call(node, *_CUTS) and _cut(graph_module, node):
            pass
        elif _does_nothing(node):
            for user in node.users:  # a view needs what is contiguous; a reshape copies where it must
                if is_call(user, aten.view.default):
                    user.target = aten.reshape.default
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
        else:
            continue
        count += 1
    return count


def _cut(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Pieces of the last axis as columns."""
    x, sizes, axis = named(node).values()
    rank = len(shape_of(x))
    items = list(node.users)
    if axis not in (-1, rank - 1) or not all(is_call(item, operator.getitem) for item in items):
        return False
    if is_call(node, aten.chunk.default):
        width = shape_of(x)[-1]
        if type(width) is not int:
            return False
        sizes = -(-width // sizes)
    for item in items:
        i = int(item.args[1])  # type: ignore[arg-type]
        start = sizes * i if isinstance(sizes, int) else sum(sizes[:i])
        with graph_module.graph.inserting_before(item):
            piece = add_columns(graph_module, x, start, start + int(shape_of(item)[-1]))
        item.replace_all_uses_with(piece)
        graph_module.graph.erase_node(item)
    graph_module.graph.erase_node(node)
    return True


def _does_nothing(node: fx.Node) -> bool:
    if is_call(node, aten.dropout.default):
        return node.args[2] is False
    if is_call(node, aten.to.dtype, aten._to_copy.default, aten.to.dtype_layout, aten.type_as.default):
        return node.args[0].meta["val"].dtype == node.meta["val"].dtype  # type: ignore[union-attr]
    if is_call(node, aten.slice.Tensor):
        start, stop = (list(node.args) + [None] * 4)[2:4]
        return start in (0, None) and (stop is None or (isinstance(stop, int) and stop >= 2**62)) and len(node.args) < 5
    return is_call(node, aten.contiguous.default, aten.detach.default, aten.alias.default, aten.lift_fresh_copy.default)
