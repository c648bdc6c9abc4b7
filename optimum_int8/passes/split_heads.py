"""Queries, keys and values that one linear gives head by head, as rows of each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import fx

from ..fx.rewrite import add_call, add_columns, aten, is_call, is_last_axis, named, ours, shape_of
from ..fx.roles import has_role
from ..operators import LINEAR
from .heads import heads_of


class _Piece(NamedTuple):
    """A node that takes some columns of each head, from `start` on."""

    node: fx.Node
    start: int


class _Whole(NamedTuple):
    """Rows of a linear, and the pieces of equal width that all of each head is cut into; `in_order` where all heads of a piece are next to
    each other."""

    rows: fx.Node
    view: fx.Node
    heads: int
    width: int
    swapped: bool
    pieces: list[_Piece]
    in_order: bool = False


def split_heads(graph_module: fx.GraphModule) -> int:
    """Needs: linears that have not been merged. Leaves: `take_heads` for the thirds of the heads of a linear, or what else a view has
    between heads and their elements, columns where all heads of a part are next to each other, so that queries, keys and values are
    heads of rows of their own. Preserves: bits."""
    count = 0
    for node in list(graph_module.graph.nodes):
        whole = _whole(node) if node.users else None
        if whole is not None:
            for piece in whole.pieces:
                _rewrite(graph_module, whole, piece)
            count += 1
    return count


def _whole(node: fx.Node) -> _Whole | None:
    if is_call(node, aten.view.default, aten.reshape.default) and len(shape_of(node)) == 5:
        return _selected(node)
    cut = heads_of(node)
    if cut is None or not has_role(cut.rows, LINEAR):
        return None
    width = int(shape_of(node)[-1])
    if width % 3:
        return None
    third = width // 3
    pieces = []
    for user in node.users:
        if not is_call(user, aten.slice.Tensor) or not is_last_axis(named(user)["dim"], node):
            return None
        pieces.append(_Piece(user, named(user)["start"] or 0))
    starts = sorted(piece.start for piece in pieces)
    equal = all(shape_of(piece.node)[-1] == third for piece in pieces)
    return (
        _Whole(cut.rows, cut.view, cut.heads, third, cut.swapped, pieces)
        if starts == [0, third, 2 * third] and equal
        else None
    )


def _selected(view: fx.Node) -> _Whole | None:
    """`[batch, length, heads, parts, head]` or `[batch, length, parts, heads, head]`, of which each part is selected."""
    rows = named(view)["self"]
    batch, length, *sizes = shape_of(view)
    is_linear = has_role(rows, LINEAR) and all(type(size) is int for size in sizes)
    if not is_linear or shape_of(rows) != (batch, length, math.prod(sizes)):
        return None
    selected: list[tuple[fx.Node, int, int]] = []  # node, axis and index
    for user in view.users:
        if not is_call(user, aten.select.int, aten.unbind.int):
            return None
        axis = named(user)["dim"] % 5
        if is_call(user, aten.unbind.int):
            selected += [(item, axis, int(item.args[1])) for item in user.users]  # type: ignore[arg-type]
        elif axis > 1:
            selected.append((user, axis, named(user)["index"] % sizes[axis - 2]))
    axes = {axis for _, axis, _ in selected}
    if len(selected) < len(view.users) or axes not in ({2}, {3}):
        return None
    in_order = axes == {2}
    heads = sizes[1 if in_order else 0]
    step = sizes[2] * (heads if in_order else 1)
    pieces = [_Piece(node, index * step) for node, _, index in selected]
    return _Whole(rows, view, heads, sizes[2], False, pieces, in_order)


def _rewrite(graph_module: fx.GraphModule, whole: _Whole, piece: _Piece) -> None:
    graph = graph_module.graph
    given: Any = whole.view.args[1]
    sizes = [*given[:2], whole.heads, whole.width]
    stride = int(shape_of(whole.rows)[-1]) // whole.heads
    with graph.inserting_before(piece.node):
        if whole.in_order:
            rows = add_columns(graph_module, whole.rows, piece.start, piece.start + whole.heads * whole.width)
        else:
            rows = add_call(
                graph_module, ours.take_heads.default, whole.rows, piece.start, stride, whole.heads, whole.width
            )
        heads = graph.call_function(aten.reshape.default, (rows, sizes))
        value = rows.meta["val"]
        heads.meta["val"] = value.new_empty((*shape_of(rows)[:2], whole.heads, whole.width), value.dtype)
        if whole.swapped:
            heads = graph.call_function(aten.transpose.int, (heads, 1, 2))
            heads.meta["val"] = piece.node.meta["val"]
    piece.node.replace_all_uses_with(heads)
    graph.erase_node(piece.node)
