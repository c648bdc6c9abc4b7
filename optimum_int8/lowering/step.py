"""A decoder layer's step that is one program, without running its graph: the views around the program cost more than some layers."""

from __future__ import annotations

import operator as python_operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..cache import Form
from ..fx.rewrite import aten, is_call
from ..kernels import as_rows, empty_rows
from ..kernels.emission import KeptRows
from ..kernels.growing import grown_heads
from .program_call import ProgramCall


class Past(NamedTuple):
    """Keys or values of a cache: tensor of the call, input of the program, and the result that begins with them."""

    tensor: int
    position: int
    result: int


class _Result(NamedTuple):
    """One of the program's results, by number, or a tensor of the call that the graph passes on."""

    computed: bool
    place: int


class WholeStep:
    """A graph that is one program and appends to a cache, as a function of the call's tensors.

    Args:
        call: the program.
        plain: of each of its inputs, and of the masks (`places`, `mask_places`), the tensor of the call.
        past: keys and values.
        states: inputs that are heads too, and not appended to.
        results: of the graph.

    Attributes:
        forms: how keys and values are quantized, where it can append to a cache that keeps them in INT8 (`StepsOnCache`); else None.
    """

    def __init__(
        self, call: ProgramCall, plain: list[int], past: list[Past], states: list[int], results: list[_Result]
    ) -> None:
        self.call = call
        count = len(plain) - call.masks
        self.places = plain[:count]
        self.mask_places = plain[count:]
        self.past = past
        self.states = states
        self.results = results
        self._fresh = [(i, rows) for i, rows in enumerate(call.outputs) if i not in call.after]
        self._heads = {earlier.position for earlier in past} | set(states)
        self.forms = self._find_forms()

    def _find_forms(self) -> tuple[Form, Form] | None:
        position, is_ids = self.call.whole
        kept = self.call.on_cache
        if kept is None or is_ids or self.places[position] != 0 or len(self._fresh) != 1:
            return None
        if {rows.given for rows in kept.fixed} != set(self.states) or self._fresh[0][1].dtype != torch.float32:
            return None
        first, *others = self.results[: len(self.results) - 2]
        if not first.computed or first.place in self.call.after or any(x.computed or not x.place for x in others):
            return None
        keys, values = (_form(rows) for rows in kept.appended)
        return keys, values

    @property
    def fixed(self) -> list[tuple[int, Form]]:
        """Tensors of the call that are keys and values which the step only reads, in turn, and how a cache keeps them."""
        kept = self.call.on_cache
        return [(self.places[rows.given or 0], _form(rows)) for rows in kept.fixed] if kept is not None else []

    @property
    def columns(self) -> int:
        """Of its one result besides keys and values."""
        return self._fresh[0][1].columns

    def __call__(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        """Run; keys and values are tensors of the call."""
        call = self.call
        inputs = [tensors[i] if place in self._heads else as_rows(tensors[i]) for place, i in enumerate(self.places)]
        for place in self.states:
            inputs[place] = as_rows(inputs[place].transpose(1, 2).flatten(2))
        position, is_ids = call.whole
        first = inputs[position].shape
        lead = first if is_ids else first[:-1]
        made: list[Any] = [None] * len(call.outputs)
        for i, rows in self._fresh:
            made[i] = empty_rows(lead, rows.columns, rows.dtype)
        for tensor, place, result in self.past:
            inputs[place], made[result] = grown_heads(tensors[tensor], lead[1])
        lengths = [kind.length(inputs, lead[1]) for kind in call.keys]
        call.run(inputs, made, lead, lengths, [tensors[i] for i in self.mask_places])
        return tuple([made[place] if computed else tensors[place] for computed, place in self.results])

    def goes_with(self, other: WholeStep) -> bool:
        """Whether a call's masks, and the size of its hidden states, are those of a call of the other."""
        kinds = [[(kind.appended, kind.has_mask, kind.position is None) for kind in x.call.keys] for x in (self, other)]
        fixed = [[place for place, _ in x.fixed] for x in (self, other)]
        same = kinds[0] == kinds[1] and fixed[0] == fixed[1]
        return same and self.mask_places == other.mask_places and self.columns == other.columns


def _form(rows: KeptRows) -> Form:
    return Form(rows.heads, rows.codes.columns, rows.scale)


def whole_step(graph_module: fx.GraphModule) -> WholeStep | None:
    """A graph that is nothing but one program which appends to a cache, and views of heads as rows and back, as a function of the call's
    tensors that gives the graph's results; None of another graph."""
    *nodes, output = [n for n in graph_module.graph.nodes if n.op != "placeholder"]
    calls = [n for n in nodes if n.op == "call_module"]
    if len(calls) != 1:
        return None
    call = graph_module.get_submodule(calls[0].target)
    if type(call) is not ProgramCall or not call.after or len(call.outputs) < 2:  # calls on images append to nothing
        return None
    places = {n: i for i, n in enumerate(graph_module.graph.find_nodes(op="placeholder"))}
    seen = {calls[0]}
    after = {earlier: result for result, earlier in call.after.items()}
    plain: list[int] = []
    past: list[Past] = []
    states: list[int] = []
    for position, argument in enumerate(calls[0].args):
        chain = _chain(argument, aten.flatten.using_ints, aten.transpose.int)
        if chain[-1] not in places or (position in after and len(chain) == 1):
            return None
        seen.update(chain)
        if position in after:
            past.append(Past(places[chain[-1]], position, after[position]))
        elif len(chain) > 1:
            states.append(position)
        plain.append(places[chain[-1]])
    results: list[_Result] = []
    for node in output.args[0]:
        if node in places:
            results.append(_Result(False, places[node]))
            continue
        chain = _chain(node, aten.transpose.int, aten.unflatten.int)
        item = chain[-1]
        if not is_call(item, python_operator.getitem) or item.args[0] is not calls[0]:
            return None
        if (len(chain) > 1) != (item.args[1] in call.after):
            return None
        seen.update(chain)
        results.append(_Result(True, int(item.args[1])))  # type: ignore[arg-type]
    if not all(n in seen for n in nodes) or len(past) != len(call.after) or any(call.squeezed):
        return None
    return WholeStep(call, plain, past, states, results)


def _chain(node: Any, *targets: Any) -> list[Any]:
    """The node and what it views, where it is a view of these kinds: of heads as rows, or of rows as heads."""
    found = [node]
    for target in targets:
        if not is_call(found[-1], target):
            return [node]
        found.append(found[-1].args[0])
    swap = next(n for n in found if is_call(n, aten.transpose.int))
    split = next(n for n in found if is_call(n, aten.flatten.using_ints, aten.unflatten.int))
    return found if list(swap.args[1:]) == [1, 2] and split.args[1] == 2 else [node]
