"""The append to a cache into the attention core that reads it: a decoder layer's step is then one program."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import fx

from ..fx.rewrite import add_call, add_item, aten, is_call, named, shape_of
from ..fx.roles import appending_form
from ..operators import Operator
from .heads import heads_of


class _Joined(NamedTuple):
    """`[batch, length, heads, head]` of a cache and of the tokens, one after the other, and the node that makes rows of them."""

    node: fx.Node
    past: fx.Node
    new: fx.Node


def fuse_appended(graph_module: fx.GraphModule) -> int:
    """Needs: attention on rows, with concatenations along rows. Leaves: the form of the core that appends and gives what the cache then holds.
    Preserves: bits."""
    count = 0
    for node in list(graph_module.graph.nodes):
        form = appending_form(node)
        if form is not None:
            count += _rewrite(graph_module, node, form)
    return count


def _rewrite(graph_module: fx.GraphModule, node: fx.Node, form: Operator) -> bool:
    given = named(node)
    joined = [_joined(given[name], node) for name in ("k", "v")]
    keys, values = joined
    if keys is None or values is None or keys.node is values.node:
        return False
    graph = graph_module.graph
    with graph.inserting_before(node):
        new = {name: _rows(graph_module, part.new) for name, part in zip("kv", (keys, values), strict=True)}
        past = {f"past_{name}": _rows(graph_module, part.past) for name, part in zip("kv", (keys, values), strict=True)}
        core = add_call(graph_module, form.overload, **{**given, **new, **past})
        core.meta["val"] = (node.meta["val"], given["k"].meta["val"], given["v"].meta["val"])
        items = [add_item(graph_module, core, position) for position in range(3)]
        node.replace_all_uses_with(items[0])
        for unused in (node, given["k"], given["v"]):
            graph.erase_node(unused)
    for part, rows in zip((keys, values), items[1:], strict=True):
        _replace(graph_module, part.node, rows)
    return True


def _joined(rows: fx.Node, reader: fx.Node) -> _Joined | None:
    """What an attention core reads, if nothing else but results of the graph and copies does, and nothing that the core reads is made of these."""
    if not is_call(rows, aten.flatten.using_ints) or list(rows.users) != [reader]:
        return None
    node = rows.args[0]
    if not is_call(node, aten.cat.default) or len(shape_of(node)) != 4 or named(node)["dim"] != 1:
        return None
    parts = named(node)["tensors"]
    if len(parts) != 2 or any(part.meta["val"].dtype != torch.float32 for part in parts):
        return None
    same = shape_of(parts[0])[2:] == shape_of(parts[1])[2:] and shape_of(parts[0])[0] == shape_of(parts[1])[0]
    if not same or shape_of(parts[1])[:2] != shape_of(reader)[:2]:
        return None
    others = [user for user in node.users if user is not rows]
    may_move = all(
        is_call(user, aten.transpose.int)
        and all(last.op == "output" or is_call(last, aten.clone.default) for last in user.users)
        for user in others
    )
    return _Joined(node, *parts) if may_move and reader not in _made_of(node, rows) else None


def _made_of(node: fx.Node, but: fx.Node | None = None) -> set[fx.Node]:
    """What is computed from `node`, not by way of `but`, up to the results of the graph."""
    found: set[fx.Node] = set()
    new = [user for user in node.users if user is not but]
    while new:
        user = new.pop()
        if user.op != "output" and user not in found:
            found.add(user)
            new += user.users
    return found


def _rows(graph_module: fx.GraphModule, heads: fx.Node) -> fx.Node:
    """`[batch, length, heads, head]` as rows."""
    cut = heads_of(heads)
    if cut is not None and not cut.swapped:
        return cut.rows
    batch, length, count, head = shape_of(heads)
    rows = graph_module.graph.call_function(aten.flatten.using_ints, (heads, 2))
    rows.meta["val"] = heads.meta["val"].new_empty((batch, length, int(count) * int(head)), torch.float32)
    return rows


def _replace(graph_module: fx.GraphModule, joined: fx.Node, rows: fx.Node) -> None:
    """Rows in the place of a concatenation; what is made of it moves behind them."""
    _, _, count, head = shape_of(joined)
    with graph_module.graph.inserting_after(rows):
        heads = graph_module.graph.call_function(aten.unflatten.int, (rows, 2, [int(count), int(head)]))
    heads.meta["val"] = joined.meta["val"]
    made_of = _made_of(joined)
    joined.replace_all_uses_with(heads)
    after = heads
    for node in list(graph_module.graph.nodes):
        if node is heads:
            break
        if node in made_of:
            after.append(node)
            after = node
    graph_module.graph.erase_node(joined)
