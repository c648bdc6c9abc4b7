"""A segment as a list of steps that needs no graph: what a program is built from, at once (rows) or for each size that comes (images)."""

from __future__ import annotations

import operator as python_operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..fx.rewrite import is_call, is_constant, named, shape_of
from ..kernels.emission import Rows
from ..operators import MASK, operator_of
from .segments import Segment, is_value


class Reference(NamedTuple):
    """A value of the program: an input (`step` -1) or a result of a step, or some of its columns."""

    step: int
    item: int
    start: int = 0
    columns: int | None = None

    def read(self, rows: Rows) -> Rows:
        """The columns of a value that this refers to."""
        return rows if self.columns is None else rows._replace(column=rows.column + self.start, columns=self.columns)

    @property
    def whole(self) -> Reference:
        """The value itself."""
        return Reference(self.step, self.item)


class Constant(NamedTuple):
    """A tensor of the graph, by its name there: a sibling has another one."""

    name: str


class Step(NamedTuple):
    """One operator of a program.

    Attributes:
        emit: see `Operator.emit`.
        arguments: by name: references, constants, numbers, lists of these.
        external: of each result, whether the graph outside needs it.
        dead: values that no later step reads.
        keys: see `Emission`.
    """

    emit: Callable[..., Any]
    arguments: dict[str, Any]
    external: tuple[bool, ...]
    dead: tuple[Reference, ...]
    keys: int = 1


class Result(NamedTuple):
    """A value that the graph outside needs: the node that stands for it there."""

    node: fx.Node
    reference: Reference


class Input(NamedTuple):
    """A value that comes from outside, and the first operator that reads it, under which name."""

    node: fx.Node
    reader: fx.Node
    name: str


@dataclass
class Plan:
    """The steps of one program, in order."""

    steps: list[Step]
    inputs: list[Input]
    results: list[Result]


def plan(
    graph_module: fx.GraphModule,
    segment: Segment,
    releases_items: bool,
    keys: Mapping[fx.Node, int] = MappingProxyType({}),
) -> Plan:
    """The steps of a segment.

    Args:
        keys: by attention core, the kind of keys that it reads.
        releases_items: whether each of several results of a step ends with its own last reader, or all with the last of them.
    """
    inputs: list[Input] = []
    references: dict[fx.Node, Reference] = {}

    def resolve(argument: Any, node: fx.Node, name: str) -> Any:
        if isinstance(argument, (list, tuple)):
            return [resolve(item, node, name) for item in argument]
        if not isinstance(argument, fx.Node) or argument in references:
            return references[argument] if isinstance(argument, fx.Node) else argument
        if is_constant(argument) and not is_value(graph_module, _operator(node), name, argument):
            return Constant(str(argument.target))
        inputs.append(Input(argument, node, name))
        references[argument] = Reference(-1, len(inputs) - 1)
        return references[argument]

    steps: list[Step] = []
    results: list[Result] = []
    for node in segment.ordered(graph_module.graph):
        if node in segment.aliases:
            references[node] = _alias(node, references)
            continue
        arguments = {key: resolve(value, node, key) for key, value in named(node).items() if key != MASK}
        items = _items(node, segment)
        external = tuple(item is not None and _escapes(item, segment) for item in items)
        for position, item in enumerate(items):
            if item is not None:
                references[item] = Reference(len(steps), position)
                results += [Result(item, references[item])] if external[position] else []
        references.setdefault(node, Reference(len(steps), 0))
        steps.append(Step(_operator(node).emit, arguments, external, (), keys.get(node, 1)))
    return Plan(_with_dead(steps, releases_items), inputs, results)


def _operator(node: fx.Node) -> Any:
    return operator_of(node.target)


def _items(node: fx.Node, segment: Segment) -> list[fx.Node | None]:
    """The nodes that stand for the results of an operator; None for one that nothing reads."""
    value = node.meta["val"]
    if not isinstance(value, tuple):
        return [node]
    found = {user.args[1]: user for user in node.users if is_call(user, python_operator.getitem)}
    return [found.get(position) for position in range(len(value))]


def _escapes(node: fx.Node, segment: Segment) -> bool:
    """Used outside, directly or through a view (which then stays in the graph and reads the result)."""
    return any(
        user not in segment.nodes and (user not in segment.aliases or _escapes(user, segment)) for user in node.users
    )


def _alias(node: fx.Node, references: dict[fx.Node, Reference]) -> Reference:
    source = references[node.args[0]]  # type: ignore[index]
    if is_call(node, python_operator.getitem):
        return Reference(source.step, int(node.args[1]))  # type: ignore[arg-type]
    start = int(node.args[2]) if len(node.args) > 2 else 0  # type: ignore[arg-type]
    return source._replace(start=source.start + start, columns=int(shape_of(node)[-1]))


def references_in(arguments: Any) -> Iterator[Reference]:
    """Those among arguments, also in lists."""
    if isinstance(arguments, Reference):
        yield arguments
    elif isinstance(arguments, (list, dict)):
        for argument in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from references_in(argument)


def read_constants(steps: Sequence[Step], find: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """The constants of steps by name, as programs read them: contiguous, and float32 where they are floats."""
    names = {constant.name for step in steps for constant in _constants_in(step.arguments)}
    found = {name: find(name) for name in sorted(names)}
    return {
        name: (tensor.to(torch.float32) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in found.items()
    }


def _constants_in(arguments: Any) -> Iterator[Constant]:
    if isinstance(arguments, Constant):
        yield arguments
    elif isinstance(arguments, (list, dict)):
        for argument in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from _constants_in(argument)


def _with_dead(steps: list[Step], releases_items: bool) -> list[Step]:
    """Note with each step what it reads for the last time."""
    last_use: dict[Any, int] = {}
    for position, step in enumerate(steps):
        for reference in references_in(step.arguments):
            if reference.step >= 0:
                last_use[reference.whole if releases_items else reference.step] = position
    dead: list[list[Reference]] = [[] for _ in steps]
    for key, position in last_use.items():
        made = [key] if releases_items else [Reference(key, i) for i in range(len(steps[key].external))]
        dead[position] += [value for value in made if not steps[value.step].external[value.item]]
    return [step._replace(dead=tuple(values)) for step, values in zip(steps, dead, strict=True)]


def emit_steps(
    steps: Sequence[Step],
    values: dict[Reference, Rows],
    emission: Any,
    before: Callable[[Step, dict[Reference, Rows]], None],
    delay: int,
    constants: Mapping[str, Tensor],
) -> None:
    """Append the steps to the emission's program; `values` gains their results.

    Args:
        values: the inputs.
        before: prepares the emission for a step.
        delay: steps for which a value that nobody reads any more keeps its place.
        constants: see `read_constants`.
    """
    waiting: list[tuple[Reference, ...]] = []
    for position, step in enumerate(steps):
        before(step, values)
        made = step.emit(emission, **{name: _rows(value, values, constants) for name, value in step.arguments.items()})
        for item, rows in enumerate(made if type(made) is tuple else (made,)):
            values[Reference(position, item)] = rows
        waiting.append(step.dead)
        if len(waiting) > delay:
            for reference in waiting.pop(0):
                emission.program.release(values[reference].value)


def _rows(argument: Any, values: dict[Reference, Rows], constants: Mapping[str, Tensor]) -> Any:
    if isinstance(argument, list):
        return [_rows(item, values, constants) for item in argument]
    if isinstance(argument, Constant):
        return constants[argument.name]
    return argument.read(values[argument.whole]) if isinstance(argument, Reference) else argument
