"""Attention in float, and INT8 attention whose keys come from a cache or from the encoder: rows in, rows out, so that it joins the
operators around it."""

from __future__ import annotations

from torch import fx

from ..fx.rewrite import add_call, aten, drop_dead, is_call, named, only_user, shape_of, swaps_heads
from ..fx.roles import rows_form
from .fuse_attention import joins_heads

_ON_ROWS = {"query": "q", "key": "k", "value": "v"}
_NAMES = {**_ON_ROWS, **{f"{heads}_scale": f"{rows}_scale" for heads, rows in _ON_ROWS.items()}}
"""Arguments of a core on heads, and what its form on rows calls them."""


def fuse_cached_attention(graph_module: fx.GraphModule) -> int:
    """Needs: nothing; what `fuse_attention` can take is better there. Leaves: `attention_floats` and
    `float_attention_rows` on rows, and concatenations along rows, whose result has the layout that the next step wants. Preserves: bits.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        if is_call(node, aten.cat.default) and _concatenate_rows(graph_module, node):
            count += 1
        else:
            count += _rewrite(graph_module, node)
    return count


def _rewrite(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    form = rows_form(node)
    after = only_user(node)
    if form is None or after is None or not joins_heads(after):
        return False
    given = named(node)
    heads, kv_heads = (int(given[name].meta["val"].shape[1]) for name in ("query", "key"))
    with graph_module.graph.inserting_before(node):
        rows = {name: _rows(graph_module, given[name]) for name in _ON_ROWS}
        arguments = {_NAMES.get(name, name): value for name, value in (given | rows).items()}
        core = add_call(graph_module, form.overload, **arguments, heads=heads, kv_heads=kv_heads)
    core.meta["val"] = after.meta["val"]  # sizes as they are named elsewhere
    after.replace_all_uses_with(core)
    drop_dead(graph_module.graph)
    return True


def _rows(graph_module: fx.GraphModule, x: fx.Node) -> fx.Node:
    """`[batch, heads, length, head]` as rows `[batch, length, heads * head]`: those it was viewed from, or a view."""
    made_from = _split_rows(x)
    if made_from is not None:
        return made_from
    swapped = _swapped(graph_module, x)
    batch, length, heads, head = shape_of(swapped)
    rows = graph_module.graph.call_function(aten.flatten.using_ints, (swapped, 2))
    rows.meta["val"] = x.meta["val"].new_empty((batch, length, int(heads) * int(head)), x.meta["val"].dtype)
    return rows


def _split_rows(x: fx.Node) -> fx.Node | None:
    """The rows that `view(...).transpose(1, 2)` split into heads."""
    if not swaps_heads(x):
        return None
    view = x.args[0]
    if not is_call(view, aten.view.default, aten.reshape.default) or len(shape_of(view)) != 4:
        return None
    rows = view.args[0]
    batch, length, heads, head = shape_of(view)
    if not isinstance(rows, fx.Node) or shape_of(rows) != (batch, length, int(heads) * int(head)):
        return None
    return rows


def _swapped(graph_module: fx.GraphModule, x: fx.Node) -> fx.Node:
    """Heads and lengths exchanged."""
    if swaps_heads(x):
        return x.args[0]  # type: ignore[return-value]
    swapped = graph_module.graph.call_function(aten.transpose.int, (x, 1, 2))
    a, b, c, d = shape_of(x)
    swapped.meta["val"] = x.meta["val"].new_empty((a, c, b, d), x.meta["val"].dtype)
    return swapped


def _concatenate_rows(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """States of a cache and new ones, concatenated as rows: heads then come last, as the projections wrote them."""
    parts, axis = named(node).values()
    if len(parts) != 2 or axis not in (-2, 2) or len(shape_of(node)) != 4:
        return False
    with graph_module.graph.inserting_before(node):
        swapped = [_swapped(graph_module, x) for x in parts]
        joined = graph_module.graph.call_function(aten.cat.default, (swapped, 1))
        a, b, c, d = shape_of(node)
        joined.meta["val"] = node.meta["val"].new_empty((a, c, b, d), node.meta["val"].dtype)
        back = graph_module.graph.call_function(aten.transpose.int, (joined, 1, 2))
        back.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(back)
    graph_module.graph.erase_node(node)
    return True
