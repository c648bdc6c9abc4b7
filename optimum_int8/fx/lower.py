"""Lowering: runs of operators that work row by row become one native program each; the rest of the graph stays.

A value of a program has one row per token, so what is lowered together shares its leading axes (batch, length). Views that only
regroup or cut columns cost nothing: they are another reading of the same value.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..kernels import emit
from ..kernels.emit import Rows, row_bytes
from ..kernels.program import Program
from .program_call import ProgramCall
from .rewrite import aten, is_call, is_constant, ours, shape_of, tensor_of

_EMITTERS = {
    getattr(ours, name).default: getattr(emit, name)
    for name in (
        "quantize",
        "quantize_rows",
        "quantize_groups",
        "linear",
        "linear_quantized",
        "norm",
        "norm_quantized",
        "norm_quantized_rows",
        "attention_rows",
        "attention_rows_quantized",
        "embedding",
        "embedding_add",
    )
}
_EMBEDDINGS = (ours.embedding.default, ours.embedding_add.default)
_LINEARS = (ours.linear.default, ours.linear_quantized.default)
_ATTENTION = (ours.attention_rows.default, ours.attention_rows_quantized.default)
_MASK = 8  # position of the mask among their arguments


@dataclass
class _Segment:
    """Consecutive operators that become one program."""

    lead: tuple[str, ...]
    nodes: list[fx.Node] = field(default_factory=list)
    aliases: list[fx.Node] = field(default_factory=list)
    mask: fx.Node | None = None

    def contains(self, node: Any) -> bool:
        return node in self.nodes or node in self.aliases


def lower(graph_module: fx.GraphModule) -> int:
    """Replace segments by programs; returns how many."""
    count = 0
    _match_dtypes(graph_module)
    for segment in _segments(graph_module):
        if not segment.nodes:
            continue
        _replace(graph_module, segment, f"program_{count}")
        count += 1
    return count


def _match_dtypes(graph_module: fx.GraphModule) -> None:
    """Programs read float32 and int64 ids; what comes in another dtype (a model in half precision) is cast on the way in."""
    for node in list(graph_module.graph.nodes):
        for argument in node.all_input_nodes if is_call(node, *_EMITTERS) else ():
            value = argument.meta["val"]
            is_mask = is_call(node, *_ATTENTION) and argument is node.args[_MASK]
            if is_mask or (tensor_of(graph_module, argument) is not None and not _is_row_input(node, argument)):
                continue
            wanted = torch.int64 if _is_ids(node, argument) else torch.float32
            if value.dtype != wanted and (_is_ids(node, argument) or value.is_floating_point()):
                with graph_module.graph.inserting_before(node):
                    cast = graph_module.graph.call_function(aten.to.dtype, (argument, wanted))
                cast.meta["val"] = value.new_empty(value.shape, wanted)
                node.replace_input_with(argument, cast)


def _segments(graph_module: fx.GraphModule) -> list[_Segment]:
    done: list[_Segment] = []
    current: _Segment | None = None
    for node in list(graph_module.graph.nodes):
        lead = _lead(node)
        if lead is not None and current is not None and not _fits(current, node, lead):
            done.append(current)
            current = None
        if lead is not None:
            current = current or _Segment(lead)
            current.nodes.append(node)
            if is_call(node, *_ATTENTION):
                current.mask = current.mask or node.args[_MASK]
        elif current is not None and _is_alias(node) and current.contains(node.args[0]):
            current.aliases.append(node)
        elif current is not None and any(current.contains(used) for used in node.all_input_nodes):
            done.append(current)
            current = None
    return done if current is None else [*done, current]


def _lead(node: fx.Node) -> tuple[str, ...] | None:
    """Leading axes of what an operator computes, None if it cannot be lowered."""
    if not is_call(node, *_EMITTERS) or (is_call(node, *_EMBEDDINGS) and node.args[0].meta["val"].dtype != torch.int64):  # type: ignore
        return None
    if is_call(node, *_LINEARS) and not all(a is None or is_constant(a) for a in node.args[3:7]):
        return None
    value = node.meta["val"]
    shape = (value[0] if isinstance(value, tuple) else value).shape
    return shape[:-1] if type(shape[-1]) is int else None  # rows of one width: not those of a matrix of scores


def _fits(segment: _Segment, node: fx.Node, lead: tuple[str, ...]) -> bool:
    mask = node.args[_MASK] if is_call(node, *_ATTENTION) else None
    other_mask = (
        is_call(node, *_ATTENTION) and any(is_call(n, *_ATTENTION) for n in segment.nodes) and mask is not segment.mask
    )
    return lead == segment.lead and not other_mask


def _is_alias(node: fx.Node) -> bool:
    """Whether a node only reads its input differently: an item of several results, or columns of the last axis for attention."""
    if is_call(node, operator.getitem):
        return True
    if not is_call(node, aten.slice.Tensor) or not all(is_call(user, *_ATTENTION) for user in node.users):
        return False
    axis = node.args[1] if len(node.args) > 1 else 0
    return axis in (-1, len(shape_of(node.args[0])) - 1) and len(node.args) < 5  # type: ignore[arg-type]


class _Emission:
    """An `Emission` into a program, whose results are local unless the graph outside needs them."""

    def __init__(self) -> None:
        self.program = Program()
        self.external: list[bool] = []  # of the next results

    def new(self, columns: int, dtype: torch.dtype) -> Rows:
        size = row_bytes(columns, dtype)
        outside = self.external.pop(0) if self.external else False
        return Rows(self.program.external(size) if outside else self.program.local(size), columns, dtype)

    def release(self, dead: list[Any]) -> None:
        """No later instruction reads these."""
        for made in dead:
            for rows in made if type(made) is tuple else (made,):
                self.program.release(rows.value)


def _replace(graph_module: fx.GraphModule, segment: _Segment, name: str) -> None:
    graph, emission = graph_module.graph, _Emission()
    values: dict[fx.Node, Any] = {}
    inputs: list[fx.Node] = []
    whole: list[tuple[int, bool]] = []

    def resolve(argument: Any, node: fx.Node) -> Any:
        if not isinstance(argument, fx.Node):
            return argument
        if argument in values:
            return values[argument]
        constant = tensor_of(graph_module, argument)
        if constant is not None and not _is_row_input(node, argument):
            return (constant.to(torch.float32) if constant.is_floating_point() else constant).contiguous()
        inputs.append(argument)
        value = argument.meta["val"]
        one_column = _is_ids(node, argument) or value.dim() == len(segment.lead)
        columns = 1 if one_column else int(value.shape[-1])
        periodic = _is_ids(node, argument) and tuple(value.shape) != segment.lead
        if not periodic and not whole:
            whole.append((len(inputs) - 1, one_column))
        values[argument] = Rows(
            emission.program.external(row_bytes(columns, value.dtype), periodic), columns, value.dtype
        )
        return values[argument]

    # external values are numbered in the order they are made: all inputs must come before the first result
    for node in segment.nodes:
        for argument in node.all_input_nodes:
            if (
                not segment.contains(argument)
                and argument is not segment.mask
                and tensor_of(graph_module, argument) is None
            ):
                resolve(argument, node)
    results: list[tuple[fx.Node, int | None, Rows, bool]] = []
    ordered = sorted(segment.nodes + segment.aliases, key=list(graph.nodes).index)
    last_use = _last_uses(ordered, segment)
    for step, node in enumerate(ordered):
        emission.release([values[n] for n, last in last_use.items() if last == step - 1])
        if node in segment.aliases:
            values[node] = _read_alias(node, values)
            continue
        wanted = _outside(node, segment)
        emission.external = wanted.copy()
        skip = {_MASK} if is_call(node, *_ATTENTION) else set()
        made = _EMITTERS[node.target](emission, *[resolve(a, node) for i, a in enumerate(node.args) if i not in skip])
        values[node] = made
        for i, (rows, outside) in enumerate(zip(made if type(made) is tuple else (made,), wanted, strict=True)):
            if outside:
                several = type(made) is tuple
                value = node.meta["val"][i] if several else node.meta["val"]
                results.append((node, i if several else None, rows, value.dim() == len(segment.lead)))
    call = ProgramCall(
        emission.program, [r[2] for r in results], [r[3] for r in results], segment.mask is not None, whole[0]
    )
    graph_module.add_submodule(name, call)
    with graph.inserting_after(max([*segment.nodes, *segment.aliases], key=list(graph.nodes).index)):
        new = graph.call_module(name, (*inputs, *([] if segment.mask is None else [segment.mask])))
    _rewire(graph, segment, new, results)


def _last_uses(ordered: list[fx.Node], segment: _Segment) -> dict[fx.Node, int]:
    """When each operator's result is read for the last time, directly or through views."""
    last: dict[fx.Node, int] = {}
    for step, node in enumerate(ordered):
        for used in node.all_input_nodes:
            while used in segment.aliases:
                used = used.args[0]  # type: ignore[assignment]
            if used in segment.nodes:
                last[used] = step
    return last


def _is_ids(node: fx.Node, argument: fx.Node) -> bool:
    return is_call(node, *_EMBEDDINGS) and argument is node.args[0]


def _is_row_input(node: fx.Node, argument: fx.Node) -> bool:
    """Whether a constant is used as rows: the ids of an embedding, the input of a linear or a norm."""
    return bool(node.args) and argument is node.args[0]


def _outside(node: fx.Node, segment: _Segment) -> list[bool]:
    """Which results of an operator the graph outside the segment needs."""
    value = node.meta["val"]
    if not isinstance(value, tuple):
        return [_escapes(node, segment)]
    items = {item.args[1]: item for item in node.users}
    return [i in items and _escapes(items[i], segment) for i in range(len(value))]


def _escapes(node: fx.Node, segment: _Segment) -> bool:
    """Used outside, directly or through a view (which then stays in the graph and reads the result)."""
    return any(
        user not in segment.nodes and (user not in segment.aliases or _escapes(user, segment)) for user in node.users
    )


def _read_alias(node: fx.Node, values: dict[fx.Node, Any]) -> Rows:
    source = values[node.args[0]]  # type: ignore[index]
    if is_call(node, operator.getitem):
        return source[node.args[1]]
    start = node.args[2] if len(node.args) > 2 else 0
    return source._replace(column=source.column + start, columns=int(shape_of(node)[-1]))


def _rewire(
    graph: fx.Graph, segment: _Segment, new: fx.Node, results: list[tuple[fx.Node, int | None, Rows, bool]]
) -> None:
    at = new
    for position, (node, item, _, _) in enumerate(results):
        with graph.inserting_after(at):
            at = out = graph.call_function(operator.getitem, (new, position)) if len(results) > 1 else new
        old = (
            node
            if item is None
            else next(user for user in node.users if is_call(user, operator.getitem) and user.args[1] == item)
        )
        out.meta["val"] = old.meta["val"]
        for user in list(old.users):
            if user not in segment.nodes:
                user.replace_input_with(old, out)
        for alias in [a for a in segment.aliases if a.args[0] is out]:
            at.append(alias)
            at = alias
    for node in sorted([*segment.nodes, *segment.aliases], key=list(graph.nodes).index, reverse=True):
        if not node.users:
            graph.erase_node(node)
