"""Heads, and the rows that they are cut from: what passes need to move an operator from the ones to the others."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import fx

from ..fx.rewrite import aten, is_call, named, shape_of, swaps_heads


class Heads(NamedTuple):
    """Rows `[batch, length, heads * head]` that a view split into heads `[batch, length, heads, head]`.

    Attributes:
        rows: before the view.
        view: the view.
        heads: their number.
        swapped: whether heads and lengths were exchanged after it.
    """

    rows: fx.Node
    view: fx.Node
    heads: int
    swapped: bool


def heads_of(x: Any) -> Heads | None:
    """How heads were cut from rows, None where `x` is something else."""
    swapped = swaps_heads(x)
    view = x.args[0] if swapped else x
    if not is_call(view, aten.view.default, aten.reshape.default) or len(shape_of(view)) != 4:
        return None
    rows = named(view)["self"]
    batch, length, heads, head = shape_of(view)
    if type(heads) is not int or type(head) is not int or shape_of(rows) != (batch, length, heads * head):
        return None
    return Heads(rows, view, heads, swapped)


def split_again(graph_module: fx.GraphModule, rows: fx.Node, cut: Heads) -> fx.Node:
    """Other rows of the same shape, split into heads the same way, at the graph's insertion point."""
    view = graph_module.graph.call_function(aten.reshape.default, (rows, cut.view.args[1]))
    value = rows.meta["val"]
    shape = shape_of(cut.view)
    view.meta["val"] = value.new_empty(shape, value.dtype)
    if not cut.swapped:
        return view
    swapped = graph_module.graph.call_function(aten.transpose.int, (view, 1, 2))
    swapped.meta["val"] = value.new_empty((shape[0], shape[2], shape[1], shape[3]), value.dtype)
    return swapped
