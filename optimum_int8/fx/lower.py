"""Lowering: runs of operators that work row by row become one native program each; the rest of the graph stays.

A value of a program has one row per token, so what is lowered together shares its leading axes (batch, length). Views that only
regroup or cut columns cost nothing: they are another reading of the same value.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from ..kernels.emit import Rows, row_bytes
from ..kernels.program import Program
from .program_call import ProgramCall
from .rewrite import is_call, shape_of, tensor_of
from .segments import (
    ATTENTION,
    EMITTERS,
    Segment,
    has_keys_outside,
    is_ids,
    is_row_input,
    mask_place,
    match_dtypes,
    segments,
)


def lower(graph_module: fx.GraphModule) -> int:
    """Replace segments by programs; returns how many."""
    count = 0
    match_dtypes(graph_module)
    for segment in segments(graph_module):
        if not segment.nodes:
            continue
        _replace(graph_module, segment, f"program_{count}")
        count += 1
    return count


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


class _Values:
    """What the nodes of a segment are in its program: rows, numbers, pointers; and the tensors that come from outside."""

    def __init__(self, graph_module: fx.GraphModule, segment: Segment, program: Program) -> None:
        self.graph_module, self.segment, self.program = graph_module, segment, program
        self.known: dict[fx.Node, Any] = {}
        self.inputs: list[fx.Node] = []
        self.whole: list[tuple[int, bool]] = []  # an input with all leading axes, and whether it has no other
        self.keys: int | None = None  # an input of the keys' length

    def resolve(self, argument: Any, node: fx.Node) -> Any:
        """An argument of `node`; one that is new comes from outside."""
        if isinstance(argument, (list, tuple)):
            return [self.resolve(item, node) for item in argument]
        if not isinstance(argument, fx.Node):
            return argument
        if argument in self.known:
            return self.known[argument]
        constant = tensor_of(self.graph_module, argument)
        if constant is not None and not is_row_input(node, argument):
            return (constant.to(torch.float32) if constant.is_floating_point() else constant).contiguous()
        self.inputs.append(argument)
        value, lead = argument.meta["val"], self.segment.lead
        one_column = is_ids(node, argument) or value.dim() == len(lead)
        columns = 1 if one_column else int(value.shape[-1])
        periodic = is_ids(node, argument) and tuple(value.shape) != lead
        if argument in node.args[1:3] and argument is not node.args[0] and has_keys_outside(node, self.segment):
            self.keys = len(self.inputs) - 1
        elif not periodic and not self.whole:
            self.whole.append((len(self.inputs) - 1, one_column))
        external = self.program.external(row_bytes(columns, value.dtype), periodic)
        self.known[argument] = Rows(external, columns, value.dtype)
        return self.known[argument]


def _replace(graph_module: fx.GraphModule, segment: Segment, name: str) -> None:
    graph, emission = graph_module.graph, _Emission()
    values = _Values(graph_module, segment, emission.program)
    # external values are numbered in the order they are made: all inputs must come before the first result
    for node in segment.nodes:
        for argument in node.all_input_nodes:
            if (
                not segment.contains(argument)
                and argument is not segment.mask
                and tensor_of(graph_module, argument) is None
            ):
                values.resolve(argument, node)
    results: list[tuple[fx.Node, int | None, Rows, bool]] = []
    ordered = sorted(segment.nodes + segment.aliases, key=list(graph.nodes).index)
    last_use = _last_uses(ordered, segment)
    for step, node in enumerate(ordered):
        emission.release([values.known[n] for n, last in last_use.items() if last == step - 1])
        if node in segment.aliases:
            values.known[node] = _read_alias(node, values.known)
            continue
        wanted = _outside(node, segment)
        emission.external = wanted.copy()
        skip = {mask_place(node)} if is_call(node, *ATTENTION) else set()
        made = EMITTERS[node.target](
            emission, *[values.resolve(a, node) for i, a in enumerate(node.args) if i not in skip]
        )
        values.known[node] = made
        for i, (rows, outside) in enumerate(zip(made if type(made) is tuple else (made,), wanted, strict=True)):
            if outside:
                several = type(made) is tuple
                value = node.meta["val"][i] if several else node.meta["val"]
                results.append((node, i if several else None, rows, value.dim() == len(segment.lead)))
    call = ProgramCall(
        emission.program,
        [r[2] for r in results],
        [r[3] for r in results],
        segment.mask is not None,
        values.whole[0],
        values.keys,
    )
    graph_module.add_submodule(name, call)
    with graph.inserting_after(max([*segment.nodes, *segment.aliases], key=list(graph.nodes).index)):
        new = graph.call_module(name, (*values.inputs, *([] if segment.mask is None else [segment.mask])))
    _rewire(graph, segment, new, results)


def _last_uses(ordered: list[fx.Node], segment: Segment) -> dict[fx.Node, int]:
    """When each operator's result is read for the last time, directly or through views."""
    last: dict[fx.Node, int] = {}
    for step, node in enumerate(ordered):
        for used in node.all_input_nodes:
            while used in segment.aliases:
                used = used.args[0]  # type: ignore[assignment]
            if used in segment.nodes:
                last[used] = step
    return last


def _outside(node: fx.Node, segment: Segment) -> list[bool]:
    """Which results of an operator the graph outside the segment needs."""
    value = node.meta["val"]
    if not isinstance(value, tuple):
        return [_escapes(node, segment)]
    items = {item.args[1]: item for item in node.users}
    return [i in items and _escapes(items[i], segment) for i in range(len(value))]


def _escapes(node: fx.Node, segment: Segment) -> bool:
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
    graph: fx.Graph, segment: Segment, new: fx.Node, results: list[tuple[fx.Node, int | None, Rows, bool]]
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
