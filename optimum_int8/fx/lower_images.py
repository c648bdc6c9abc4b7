"""Lowering of images: runs of operators on `[batch, height, width, channels]` become one spatial program each.

The sizes of the values follow from those of the inputs, so a program is built for each size of image that comes, at its first call.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..kernels import as_rows, emit, emit_conv, emit_sum, empty_rows
from ..kernels.emit import Rows, row_bytes
from ..kernels.program import Program
from .program_call import ProgramCall
from .rewrite import is_call, is_constant, ours, tensor_of
from .segments import adds_unequal

_IMAGES = ("conv", "conv_quantized", "conv_both", "max_pool", "avg_pool", "avg_pool_quantized", "quantize_samples")
_ROWS = ("quantize", "linear", "linear_quantized", "norm", "norm_quantized")
_SUMS = ("dequantize", "add", "add_quantized", "cat_quantized")
_EMITTERS = {
    getattr(ours, name).default: getattr(module, name)
    for module, names in ((emit_conv, _IMAGES), (emit, _ROWS), (emit_sum, _SUMS))
    for name in names
}
_CONVS = tuple(
    getattr(ours, name).default for name in ("linear", "linear_quantized", "conv", "conv_quantized", "conv_both")
)
_MOST_SIZES = 16
_CHAINED = 2
"""Steps for which a value that nobody reads any more keeps its place: steps that are computed together (csrc/ops/conv_chain.h) may still."""


class _Value(NamedTuple):
    """An argument that is a value of the program: an input (`step` -1) or a result of a step."""

    step: int
    item: int


class _Step(NamedTuple):
    emitter: Any
    args: tuple[Any, ...]
    external: tuple[bool, ...]
    dead: tuple[_Value, ...]  # after it


@dataclass
class _Segment:
    nodes: list[fx.Node] = field(default_factory=list)
    items: list[fx.Node] = field(default_factory=list)

    def contains(self, node: fx.Node) -> bool:
        return node in self.nodes or node in self.items


def lower_images(graph_module: fx.GraphModule) -> int:
    """Needs: operators in their final form. Leaves: runs of operators on images as spatial programs. Preserves: bits."""
    found = [s for s in _segments(graph_module) if any(is_call(n, *list(_EMITTERS)[: len(_IMAGES)]) for n in s.nodes)]
    for i, segment in enumerate(found):
        _replace(graph_module, segment, f"images_{i}")
    return len(found)


def _segments(graph_module: fx.GraphModule) -> list[_Segment]:
    done, current = [], _Segment()
    for node in graph_module.graph.nodes:
        if _can_lower(node):
            current.nodes.append(node)
        elif is_call(node, operator.getitem) and current.contains(node.args[0]):
            current.items.append(node)
        elif any(current.contains(used) for used in node.all_input_nodes):
            done.append(current)
            current = _Segment()
    return [*done, current]


def _can_lower(node: fx.Node) -> bool:
    if not is_call(node, *_EMITTERS) or adds_unequal(node):
        return False
    if is_call(node, *_CONVS) and not all(a is None or is_constant(a) for a in node.args[3:7]):
        return False
    value = node.meta["val"]
    first = value[0] if isinstance(value, tuple) else value
    source = node.all_input_nodes[0].meta["val"]
    return len(first.shape) == 4 and source.dtype in (torch.float32, torch.uint8)


def _replace(graph_module: fx.GraphModule, segment: _Segment, name: str) -> None:
    graph = graph_module.graph
    values: dict[fx.Node, _Value] = {}
    inputs: list[fx.Node] = []

    def resolve(argument: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            return [resolve(item) for item in argument]
        if not isinstance(argument, fx.Node) or argument in values:
            return values.get(argument, argument) if isinstance(argument, fx.Node) else argument
        constant = tensor_of(graph_module, argument)
        if constant is not None:
            return (constant.to(torch.float32) if constant.is_floating_point() else constant).contiguous()
        inputs.append(argument)
        values[argument] = _Value(-1, len(inputs) - 1)
        return values[argument]

    steps: list[_Step] = []
    results: list[tuple[fx.Node, _Value]] = []
    last_use: dict[_Value, int] = {}
    for i, node in enumerate(segment.nodes):
        args = tuple(resolve(a) for a in node.args)
        last_use |= {a: i for a in _values(args) if a.step >= 0}
        several = isinstance(node.meta["val"], tuple)
        outs = {u.args[1]: u for u in node.users if u in segment.items} if several else {0: node}
        count = len(node.meta["val"]) if several else 1
        external = tuple(k in outs and any(u not in segment.nodes for u in outs[k].users) for k in range(count))
        for k, out in outs.items():
            values[out] = _Value(i, k)
            if external[k]:
                results.append((out, values[out]))
        steps.append(_Step(_EMITTERS[node.target], args, external, ()))
    for value, i in last_use.items():
        if not steps[value.step].external[value.item]:
            steps[i] = steps[i]._replace(dead=(*steps[i].dead, value))
    graph_module.add_submodule(name, ImagesCall(steps, [value for _, value in results]))
    with graph.inserting_after(max([*segment.nodes, *segment.items], key=list(graph.nodes).index)):
        new = at = graph.call_module(name, tuple(inputs))
    for position, (old, _) in enumerate(results):
        with graph.inserting_after(at):
            out = graph.call_function(operator.getitem, (new, position)) if len(results) > 1 else new
        at, out.meta["val"] = out, old.meta["val"]
        for user in list(old.users):
            if user not in segment.nodes:
                user.replace_input_with(old, out)
    for node in reversed(list(graph.nodes)):
        if segment.contains(node):
            graph.erase_node(node)


def _values(args: Any) -> list[_Value]:
    """Those among arguments, also in lists."""
    if isinstance(args, _Value):
        return [args]
    return [value for a in args for value in _values(a)] if isinstance(args, (list, tuple)) else []


def _rows(argument: Any, values: dict[_Value, Rows]) -> Any:
    if isinstance(argument, list):
        return [_rows(item, values) for item in argument]
    return values[argument] if isinstance(argument, _Value) else argument


class _Emission:
    """An `ImageEmission` into a spatial program, whose results are local unless the graph outside needs them."""

    def __init__(self) -> None:
        self.program = Program(spatial=True)
        self.size = (0, 0)
        self.external: list[bool] = []  # of the next results

    def new(self, columns: int, dtype: torch.dtype) -> Rows:
        """A value of `size`. Local images of bytes lie without gaps: a row of a kernel is then one run of memory."""
        outside = self.external.pop(0)
        pixels = self.size[0] * self.size[1]
        if outside:
            return Rows(self.program.external(row_bytes(columns, dtype), rows=pixels), columns, dtype, size=self.size)
        value = self.program.local(columns * dtype.itemsize, pixels)
        return Rows(value, columns, dtype, size=self.size)


class ImagesCall(ProgramCall):
    """Spatial programs as a node, one for each size of the inputs; takes them channels-last, allocates and returns the results."""

    def __init__(self, steps: list[_Step], results: list[_Value]) -> None:
        torch.nn.Module.__init__(self)
        self.steps, self.results = steps, results
        self.built: dict[tuple[Any, ...], tuple[Program, list[Rows]]] = {}

    @property
    def program(self) -> list[_Step]:  # type: ignore[override]
        """What `inspect` counts."""
        return self.steps

    def forward(self, *tensors: Tensor) -> Any:
        """See the class."""
        inputs = [as_rows(t) for t in tensors]
        key = tuple([t.shape[1:] for t in inputs])
        known = self.built.get(key)
        program, outputs = known or self._build(key, inputs)
        batch = inputs[0].shape[0]
        results = [empty_rows((batch, *r.size), r.columns, r.dtype) for r in outputs]
        program.run(batch, 1, inputs + results)
        return results[0] if len(results) == 1 else tuple(results)

    def _build(self, key: tuple[Any, ...], inputs: list[Tensor]) -> tuple[Program, list[Rows]]:
        e = _Emission()
        values: dict[_Value, Rows] = {}
        for i, t in enumerate(inputs):
            size, columns = (t.shape[1], t.shape[2]), t.shape[3]
            value = e.program.external(row_bytes(columns, t.dtype), rows=size[0] * size[1])
            values[_Value(-1, i)] = Rows(value, columns, t.dtype, size=size)
        dead: list[tuple[_Value, ...]] = []
        for i, step in enumerate(self.steps):
            args = [_rows(a, values) for a in step.args]
            e.size, e.external = values[_values(step.args)[0]].size, list(step.external)
            made = step.emitter(e, *args)
            values |= {_Value(i, k): rows for k, rows in enumerate(made if type(made) is tuple else (made,))}
            dead.append(step.dead)
            if len(dead) > _CHAINED:
                for value in dead.pop(0):
                    e.program.release(values[value].value)
        if len(self.built) >= _MOST_SIZES:
            self.built.pop(next(iter(self.built)))
        self.built[key] = e.program, [values[r] for r in self.results]
        return self.built[key]

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{len(self.steps)} instructions, {len(self.built)} sizes"
