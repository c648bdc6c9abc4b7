"""Lowering of rows: consecutive operators that work row by row become one native program; the rest of the graph stays.

A value of a program has one row per token, so what is lowered together shares its leading axes (batch, length). Views that only
regroup or select columns cost nothing: they read the same value in another way.
"""

from __future__ import annotations

import functools
import operator as python_operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..fx.rewrite import aten, attribute, is_call, is_last_axis, named, shape_of
from ..fx.roles import broadcasts, called
from ..fx.shapes import Shaped
from ..kernels.emission import KeptRows, Rows, row_bytes
from ..kernels.interface import KEYS
from ..kernels.program import Program
from ..operators import APPENDED, EITHER, MASK, OUTSIDE, ROWS, Operator, operator_of
from .order import delay_others
from .plan import Plan, Reference, Step, emit_steps, plan, read_constants
from .program_call import CacheProgram, CallKeys, ProgramCall
from .replace import replace_segment
from .segments import Segment, is_value, segments


def lower_rows(graph_module: fx.GraphModule) -> int:
    """Needs: operators in their final form. Leaves: consecutive operators on rows as programs. Preserves: bits."""
    match_dtypes(graph_module)
    delay_others(graph_module)
    found = segments(graph_module, RowDomain())
    for count, segment in enumerate(found):
        kinds = _kinds(segment)
        numbers = {node: kinds.index(_kind(node, segment)) + 1 for node in segment.nodes if keys_of(node)}
        made = plan(graph_module, segment, releases_items=False, keys=numbers)
        blueprint = Blueprint.of(segment, made, kinds)
        call = blueprint.build(functools.partial(attribute, graph_module))
        call.rebuild = blueprint.build
        inputs = [given.node for given in made.inputs] + [kind.mask for kind in kinds if kind.mask is not None]
        replace_segment(graph_module, segment, f"program_{count}", call, inputs, made.results)
    return len(found)


class RowDomain:
    """Programs that compute one row per token."""

    name = ROWS

    def lead(self, graph_module: fx.GraphModule, node: fx.Node, operator: Operator) -> tuple[Any, ...] | None:
        """See `Domain`. Rows of one width: not those of a matrix of scores."""
        given = named(node)
        if "ids" in given and given["ids"].meta["val"].dtype != torch.int64:
            return None
        if broadcasts(node):
            return None
        value = node.meta["val"]
        shape = (value[0] if isinstance(value, tuple) else value).shape
        return shape[:-1] if type(shape[-1]) is int else None

    def joins(self, segment: Segment, node: fx.Node, operator: Operator) -> bool:
        """See `Domain`. A call has a few kinds of keys: an attention with one more, or whose keys come from the segment itself, begins a
        new program."""
        if not operator.keys:
            return True
        inside = [segment.contains(key) for key in keys_of(node)]
        own_keys = any(inside) and (operator.keys in (OUTSIDE, APPENDED) or not all(inside))
        return not own_keys and len({*_kinds(segment), _kind(node, segment)}) <= KEYS

    def is_alias(self, node: fx.Node) -> bool:
        """See `Domain`: an item of several results, or columns of the last axis for operators that take some."""
        if is_call(node, python_operator.getitem):
            return True
        readers = [user for user in node.users if called(user) is not None]
        if not is_call(node, aten.slice.Tensor) or not readers or not all(_takes_columns(r, node) for r in readers):
            return False
        given = named(node)
        begins = type(given["start"]) is int and given["start"] >= 0 and given["step"] == 1
        return begins and is_last_axis(given["dim"], given["self"])


def _takes_columns(reader: fx.Node, node: fx.Node) -> bool:
    """Whether an operator reads `node` only where it takes columns of a value."""
    operator = operator_of(reader.target)
    places = [name for name, given in named(reader).items() if given is node]
    in_lists = any(isinstance(given, (list, tuple)) and node in given for given in named(reader).values())
    return operator is not None and not in_lists and all(name in operator.columns for name in places)


class Kind(NamedTuple):
    """Keys and values of one length, under one mask.

    Attributes:
        length: as shapes name it; None where they are those of the tokens, which the program computes.
        appended: whether those of the tokens come after them.
    """

    mask: fx.Node | None
    length: Any
    appended: bool


def _kinds(segment: Segment) -> list[Kind]:
    """Those that the attention cores of a segment read, in order."""
    return list(dict.fromkeys(_kind(node, segment) for node in segment.nodes if keys_of(node)))


def _kind(node: fx.Node, segment: Segment) -> Kind:
    operator = operator_of(node.target)
    assert operator is not None
    length = shape_of(keys_of(node)[0])[1] if has_keys_outside(node, segment) else None
    return Kind(named(node)[MASK], length, operator.keys == APPENDED)


def keys_of(node: fx.Node) -> tuple[Any, ...]:
    """Keys and values of an attention; those of a cache, where it has some; nothing of another operator."""
    operator = operator_of(node.target)
    if operator is None or not operator.keys:
        return ()
    given = named(node)
    return tuple(given[name] for name in key_names(node))


def key_names(node: fx.Node) -> tuple[str, str]:
    """Names of the arguments of an operator whose rows are those of keys, where it is an attention."""
    operator = operator_of(node.target)
    return ("past_k", "past_v") if operator is not None and operator.keys == APPENDED else ("k", "v")


def has_keys_outside(node: fx.Node, segment: Segment) -> bool:
    """Whether an attention's keys and values come from a cache or from the encoder, so that they have a length of their own."""
    keys = operator_of(node.target).keys  # type: ignore[union-attr]
    return keys in (OUTSIDE, APPENDED) or (keys == EITHER and not all(segment.contains(key) for key in keys_of(node)))


def match_dtypes(graph_module: fx.GraphModule) -> None:
    """Programs read float32 and int64 ids; what comes in another dtype (a model in half precision) is cast on the way in."""
    for node in list(graph_module.graph.nodes):
        operator = called(node)
        if operator is None or ROWS not in operator.domains:
            continue
        for name, argument in named(node).items():
            if isinstance(argument, fx.Node) and is_value(graph_module, operator, name, argument):
                _match_dtype(graph_module, node, name, argument)


def _match_dtype(graph_module: fx.GraphModule, node: fx.Node, name: str, argument: fx.Node) -> None:
    value = argument.meta["val"]
    wanted = torch.int64 if name == "ids" else torch.float32
    if value.dtype == wanted or not (name == "ids" or value.is_floating_point()):
        return
    with graph_module.graph.inserting_before(node):
        cast = graph_module.graph.call_function(aten.to.dtype, (argument, wanted))
    cast.meta["val"] = value.new_empty(value.shape, wanted)
    node.replace_input_with(argument, cast)


class _Emission:
    """An `Emission` into a program, whose results are local unless the graph outside needs them.

    Args:
        kept: takes the INT8 keys and values that a cache keeps; None where keys and values are float.
    """

    def __init__(self, kept: list[KeptRows] | None = None) -> None:
        self.program = Program()
        self.keys = 1
        self.kept = kept
        self.outside: dict[int, int] = {}  # inputs of the program that are keys or values of no length of the tokens'
        self.external: list[bool] = []  # of the next results
        self.after: dict[int, int] = {}  # of results that begin with the rows of another value

    def is_outside(self, rows: Rows) -> bool:
        """See `Emission`."""
        return self.kept is not None and rows.value in self.outside

    def keep(self, rows: Rows, heads: int, scale: Tensor | None) -> KeptRows | None:
        """See `Emission`."""
        if self.kept is None:
            return None
        columns = rows.columns
        codes = Rows(self.program.external(row_bytes(columns, torch.uint8)), columns, torch.uint8)
        scales = None if scale is not None else Rows(self.program.external(4 * heads), heads, torch.float32)
        self.kept.append(KeptRows(codes, scales, heads, scale, self.outside.get(rows.value)))
        return self.kept[-1]

    def new(self, columns: int, dtype: torch.dtype, after: Rows | None = None) -> Rows:
        """A value for the next result, see `Emission`. Nothing is written to one that is `after` others while those are kept in INT8."""
        size = row_bytes(columns, dtype)
        outside = self.external.pop(0) if self.external else False
        value = self.program.external(size) if outside else self.program.local(size)
        if outside and after is not None:
            self.after[value] = after.value
        return Rows(value, columns, dtype)


class _Built(NamedTuple):
    """A program, and its values by reference.

    Attributes:
        whole: an input with all leading axes, and whether it has no other.
        keys: by kind of keys, an input of their length.
    """

    emission: _Emission
    values: dict[Reference, Rows]
    whole: tuple[int, bool]
    keys: dict[int, int]


class Given(NamedTuple):
    """An input of a program.

    Attributes:
        value: of the graph.
        name: under which its first reader reads it.
        may_repeat: whether that reader takes rows that the whole batch shares.
        kind: the kind of keys (`Blueprint.kinds`) that its rows are, where they have a length of their own.
    """

    value: Shaped
    name: str
    may_repeat: bool
    kind: int | None


@dataclass(frozen=True)
class Blueprint:
    """All that a program is built from but for its constants: siblings share it.

    Attributes:
        results: what the graph outside reads, and the values there.
        lead: leading axes of what is computed.
        kinds: of the keys that attention cores read: whether the program appends to them, and whether they have a mask.
    """

    steps: list[Step]
    inputs: list[Given]
    results: list[tuple[Reference, Shaped]]
    lead: tuple[Any, ...]
    kinds: list[tuple[bool, bool]]

    @classmethod
    def of(cls, segment: Segment, made: Plan, kinds: list[Kind]) -> Blueprint:
        """What a plan says without its graph."""
        inputs = []
        for node, reader, name in made.inputs:
            may_repeat = name == "ids" or name in operator_of(reader.target).periodic  # type: ignore[union-attr]
            is_keys = name in key_names(reader) and has_keys_outside(reader, segment)
            kind = kinds.index(_kind(reader, segment)) if is_keys else None
            inputs.append(Given(node.meta["val"], name, may_repeat, kind))
        results = [(result.reference, result.node.meta["val"]) for result in made.results]
        read = [(kind.appended, kind.mask is not None) for kind in kinds]
        return cls(made.steps, inputs, results, segment.lead, read)

    def build(self, find: Callable[[str], Tensor]) -> ProgramCall:
        """The program with the constants that `find` knows by name."""
        emission, values, whole, keys = self._emit(find, _Emission())
        outputs = [values[reference.whole] for reference, _ in self.results]
        places = {values[Reference(-1, position)].value: position for position in range(len(self.inputs))}
        after = {
            i: places[emission.after[rows.value]] for i, rows in enumerate(outputs) if rows.value in emission.after
        }
        squeezed = [value.dim() == len(self.lead) for _, value in self.results]
        read = [CallKeys(keys.get(i), appended, has_mask) for i, (appended, has_mask) in enumerate(self.kinds)]
        on_cache = self._build_on_cache(find) if after else None
        return ProgramCall(emission.program, outputs, squeezed, whole, read, after, on_cache)

    def _build_on_cache(self, find: Callable[[str], Tensor]) -> CacheProgram | None:
        """The same on the keys and values that a cache keeps in INT8; None with more than one attention to such keys."""
        kept: list[KeptRows] = []
        emission, values, *_ = self._emit(find, _Emission(kept))
        appended = [rows for rows in kept if rows.given is None]
        if len(appended) != 2:
            return None
        program = emission.program
        inputs = [program.external_index(values[Reference(-1, i)].value) for i in range(len(self.inputs))]
        outputs = [program.external_index(values[reference.whole].value) for reference, _ in self.results]
        fixed = [rows for rows in kept if rows.given is not None]
        return CacheProgram(program, inputs, outputs, appended, fixed)

    def _emit(self, find: Callable[[str], Tensor], emission: _Emission) -> _Built:
        values: dict[Reference, Rows] = {}
        whole: tuple[int, bool] | None = None  # an input with all leading axes, and whether it has no other
        keys: dict[int, int] = {}  # inputs of the keys' length
        for position, (value, name, may_repeat, kind) in enumerate(self.inputs):
            one_column = name == "ids" or value.dim() == len(self.lead)
            columns = 1 if one_column else int(value.shape[-1])
            periodic = may_repeat and tuple(value.shape)[: len(self.lead)] != self.lead
            if kind is not None:
                keys[kind] = position
            elif not periodic and whole is None:
                whole = (position, one_column)
            external = emission.program.external(row_bytes(columns, value.dtype), periodic)
            values[Reference(-1, position)] = Rows(external, columns, value.dtype)
            if kind is not None and not self.kinds[kind][0]:
                emission.outside[external] = position

        def before(step: Step, known: dict[Reference, Rows]) -> None:
            emission.external = list(step.external)
            emission.keys = step.keys

        emit_steps(self.steps, values, emission, before, 0, read_constants(self.steps, find))
        assert whole is not None
        return _Built(emission, values, whole, keys)
