"""Rotary position embedding of queries and keys as an operator on rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx

from ..fx.rewrite import add_call, aten, both_orders, is_call, is_last_axis, named, only_user, ours, shape_of
from .heads import Heads, heads_of, split_again


class _Turn(NamedTuple):
    """`x * cos + rotated(x) * sin`, of heads `x` or of their first elements."""

    x: fx.Node
    cos: fx.Node
    sin: fx.Node
    interleaved: bool


def fuse_rotary(graph_module: fx.GraphModule) -> int:
    """Needs: norms of heads on rows. Leaves: `rotary` on rows for `x * cos + rotate_half(x) * sin` of heads that a view cut from them, of
    all of a head or of its first elements. Preserves: bits.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        turn = _turn(node)
        if turn is not None:
            count += _rewrite(graph_module, node, turn)
    return count


def _rewrite(graph_module: fx.GraphModule, node: fx.Node, turn: _Turn) -> bool:
    x, last = _whole_heads(node, turn)
    cut = heads_of(x)
    if cut is None or last is None or x.meta["val"].dtype != torch.float32:
        return False
    with graph_module.graph.inserting_before(last):
        angles = [_angles(graph_module, angle, cut) for angle in (turn.cos, turn.sin)]
        if None in angles or shape_of(angles[0]) != shape_of(angles[1]):  # type: ignore[arg-type]
            return False
        rows = add_call(graph_module, ours.rotary.default, cut.rows, *angles, cut.heads, turn.interleaved)
        last.replace_all_uses_with(split_again(graph_module, rows, cut))
    graph_module.graph.erase_node(last)
    return True


def _whole_heads(node: fx.Node, turn: _Turn) -> tuple[fx.Node, fx.Node | None]:
    """The heads of which `node` turns all or the first elements, and the node that has all of them again."""
    turned = shape_of(turn.x)[-1]
    joined = only_user(node)
    if is_call(joined, aten.cat.default) and is_last_axis(named(joined)["dim"], joined):
        parts = named(joined)["tensors"]
        rest = _piece(parts[1]) if len(parts) == 2 and parts[0] is node else None
        first = _piece(turn.x)
        base = turn.x if first is None or heads_of(turn.x) is not None else first.x
        if rest is not None and rest.x is base and rest.start == turned and rest.is_plain and rest.reaches_end:
            return base, joined
    return turn.x, node if heads_of(turn.x) is not None else None


def _angles(graph_module: fx.GraphModule, angle: fx.Node, cut: Heads) -> fx.Node | None:
    """cos or sin as `[batch or 1, length, turned]`; None where they differ from head to head."""
    if len(shape_of(angle)) != 4 or angle.meta["val"].dtype != torch.float32:
        return None
    axis = 1 if cut.swapped else 2
    batch, length = shape_of(cut.rows)[:2]
    shape = list(shape_of(angle))
    heads = shape.pop(axis)
    head = shape_of(cut.view)[-1]
    fits = type(shape[2]) is int and shape[2] % 2 == 0 and shape[2] <= head
    if heads != 1 or shape[0] not in (1, batch) or shape[1] != length or not fits:
        return None
    if is_call(angle, aten.unsqueeze.default) and angle.args[1] == axis:
        return named(angle)["self"]
    rows = graph_module.graph.call_function(aten.squeeze.dim, (angle, axis))
    rows.meta["val"] = angle.meta["val"].new_empty(tuple(shape), torch.float32)
    return rows


def _turn(node: fx.Node) -> _Turn | None:
    if not is_call(node, aten.add.Tensor) or node.kwargs.get("alpha", 1) != 1:
        return None
    for plain, other in both_orders(node, aten.add.Tensor):
        for x, cos in both_orders(plain, aten.mul.Tensor):
            for rotated, sin in both_orders(other, aten.mul.Tensor):
                kind = _rotation(rotated, x)
                if kind is not None and shape_of(x)[-1] == shape_of(cos)[-1] == shape_of(sin)[-1]:
                    return _Turn(x, cos, sin, kind)
    return None


def _rotation(node: fx.Node, x: fx.Node) -> bool | None:
    """Whether `node` is `x` with neighbours exchanged (True) or halves (False), the one that comes first negative; else None."""
    if len(shape_of(x)) != 4:
        return None
    interleaved = is_call(node, aten.flatten.using_ints) and is_call(node.args[0], aten.stack.default)
    joined: Any = node.args[0] if interleaved else node
    if not is_call(joined, aten.cat.default, aten.stack.default) or len(named(joined)["tensors"]) != 2:
        return None
    axis = named(joined)["dim"]
    if interleaved and (named(node)["start_dim"] not in (-2, 3) or axis not in (-1, 4)):
        return None
    if not interleaved and (is_call(joined, aten.stack.default) or not is_last_axis(axis, joined)):
        return None
    negative, first = named(joined)["tensors"]
    second = _piece(negative.args[0]) if is_call(negative, aten.neg.default) else None
    front = _piece(first)
    if second is None or front is None or second.x is not x or front.x is not x or front.start != 0:
        return None
    half = int(shape_of(x)[-1]) // 2
    if interleaved:
        return True if second.start == 1 and second.step == front.step == 2 and front.stop >= 2 * half - 1 else None
    halves = second.start == front.stop == half and second.is_plain and front.is_plain and second.reaches_end
    return False if halves and 2 * half == shape_of(x)[-1] else None


class _Piece(NamedTuple):
    """Elements `start` to `stop` of the last axis of `x`."""

    x: fx.Node
    start: int
    stop: int
    step: int

    @property
    def is_plain(self) -> bool:
        return self.step == 1

    @property
    def reaches_end(self) -> bool:
        return self.stop >= shape_of(self.x)[-1]


def _piece(node: Any) -> _Piece | None:
    if not is_call(node, aten.slice.Tensor):
        return None
    given = named(node)
    x = given["self"]
    width = shape_of(x)[-1]
    bounds = [given["start"] or 0, width if given["end"] is None else given["end"], given["step"]]
    if not is_last_axis(given["dim"], x) or not all(type(n) is int for n in (width, *bounds)):
        return None
    start, stop, step = bounds
    return _Piece(x, start if start >= 0 else start + width, stop if stop >= 0 else stop + width, step)
