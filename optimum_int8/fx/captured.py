"""From a module and one real call to an FX graph with dynamic batch and sequence, through `torch.export`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from .arguments import Key, NotCapturable, cache_tensors, flatten_output, rebuild
from .caches import SELF, find_cache, layer_index
from .guards import Guard, assumptions, compile_guard
from .lazy_graph import LazyGraph, copy_graph
from .rewrite import attribute, drop_dead
from .shapes import shaped
from .silence import quiet
from .tracing import cheap_tracing

_PREFIX = "block."
_LIMIT = 20.0
"""Seconds of processor time for one export: ten times what a ResNet takes. Mask2Former computes with the sizes of three images at once, and
was not done after 240."""
_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent), "<")
"""Files whose lines say nothing to a user: torch, this package, generated code."""


@dataclass
class Captured:
    """A graph whose `get_attr` targets are relative to its module, so that it can be bound to a sibling."""

    graph: fx.Graph
    output: Key
    constants: dict[str, Any]  # tensors the graph made for itself
    image: tuple[int, ...] | None = None  # height and width of the first tensor, where no other would do
    rounded: bool = False  # its passes must be compared one by one, see `ROUNDED`
    guard: Guard | None = None  # what it assumes of the sizes of a call
    assumed: Sequence[Any] = ()  # the same, as expressions
    reusable: Any = None  # what it was compiled to for one module, see `compiler.Reusable`

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the graph is one for tensors of these sizes."""
        return self.guard is None or self.guard(tensors)

    def tensors(self, module: nn.Module) -> dict[str, Any]:
        """The tensors of `module` and of its own that the graph reads, by name."""
        found = {}
        for node in self.graph.find_nodes(op="get_attr"):
            own = self.constants.get(node.target)
            found[node.target] = attribute(module, node.target) if own is None else own
        return found

    def bind(self, module: nn.Module) -> fx.GraphModule:
        """The graph on the tensors of `module`."""
        return LazyGraph(self.tensors(module), copy_graph(self.graph))

    def run(self, held: Mapping[str, Any], tensors: Sequence[Tensor]) -> list[Any]:
        """What the graph gives for a call; `held` are from `tensors`. Running it node by node takes less time than binding it does."""
        values: dict[fx.Node, Any] = {}
        given = iter(tensors)
        for node in self.graph.nodes:
            if node.op == "call_function":
                target: Any = node.target
                arguments = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = target(*arguments[0], **arguments[1])
            elif node.op == "get_attr":
                values[node] = held[str(node.target)]
            elif node.op == "placeholder":
                values[node] = next(given)
        return [values[result] for result in graph_results(self.graph)]


def capture(module: nn.Module, forward: Callable[..., Any], key: Key, tensors: list[Tensor]) -> Captured:
    """Export one call. The graph takes the call's tensors and returns a tuple of tensors.

    Args:
        forward: the module's own forward, bound.
        key, tensors: of the call, from `flatten`. The graph is made at another batch and length than theirs, so that running it on
            them is a check at a second shape.

    Raises:
        NotCapturable: with the reason and, where there is one, the line of the model's source.
    """
    image = tuple(tensors[0].shape[2:]) if tensors and is_image(tensors[0]) else None
    if image is None:
        cached = cache_tensors(key)
        try:
            return _export(module, forward, key, *other_shapes(tensors, (), cached))
        except NotCapturable:  # a bias of each head may have an axis for batch and heads together
            if not any(_heads_in_batch(tensor, tensors[0]) for tensor in tensors[1:]):
                raise
            return _export(module, forward, key, *other_shapes(tensors, (), cached, heads_in_batch=True))
    try:
        return _export(module, forward, key, *other_shapes(tensors, image))
    except NotCapturable:  # it may be made for one size of image
        captured = _export(module, forward, key, *other_shapes(tensors))
        captured.image = image
        return captured


def _export(
    module: nn.Module,
    forward: Callable[..., Any],
    key: Key,
    example: list[Tensor],
    shapes: list[dict[int, Any]],
) -> Captured:
    outputs: list[Key] = []  # outside the wrapper: torch.export undoes what a forward writes to its module
    wrapper = _Call(module, forward, key, outputs)
    try:
        with quiet(), torch.no_grad(), cheap_tracing(_LIMIT):
            exported = torch.export.export(wrapper, (example,), strict=False, dynamic_shapes=(shapes,))
            captured = _detach(exported, outputs[0], {name for name, _ in _named_tensors(module)})
            captured.assumed = assumptions(exported)
            captured.guard = compile_guard(captured.assumed)
            return captured
    except NotCapturable:
        raise
    except Exception as error:  # torch.export raises many kinds; each only means that this module stays as it is
        raise NotCapturable(explain(error)) from error


class _Call(nn.Module):
    def __init__(self, module: nn.Module, forward: Callable[..., Any], key: Key, outputs: list[Key]) -> None:
        super().__init__()
        self.block = module
        self.call = forward
        self.key = key
        self.outputs = outputs
        self.layer = layer_index(module)

    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        args, kwargs = rebuild(self.key, tensors, self.layer)
        result = self.call(*args, **kwargs)
        output, results = flatten_output(result, find_cache([*args, *kwargs.values()]), tensors, self.layer)
        self.outputs.append(output)
        return tuple(results)


def other_shapes(
    tensors: list[Tensor],
    image: tuple[int, ...] = (),
    cached: Mapping[int, str] | None = None,
    heads_in_batch: bool = False,
) -> tuple[list[Tensor], list[dict[int, Any]]]:
    """Examples at a larger batch and length, and the dynamic axes of each.

    Axis 0 is the batch; the length is axis 1 of the first tensor, and where its size turns up in axis 1 of integers and of 3-D
    tensors, in axis 2 of 3-D integers or in the last two of 4-D ones. With `image`, the height and width
    of the first tensor, its last two axes grow too. An axis of size 1 that is not the batch's or the length's broadcasts and stays 1.

    Args:
        cached: which tensors are states of a cache, `[batch, heads, states, head]`. A single token that comes to such states stays a
            single one; the states grow, and so does what has one entry for each of them and of the new tokens.
        heads_in_batch: 3-D floats whose first axis is a multiple of the batch have an entry for each head of each sequence there, and perhaps
            the length or the states in their last.
    """
    if not tensors:
        raise NotCapturable("the call has no tensor")
    cached = cached or {}
    batch = tensors[0].shape[0] if tensors[0].dim() else 0
    taken = {size for t in tensors for size in t.shape} | {1}
    new_batch, grown, past = _larger(tensors, batch, taken, cached)
    example = []
    shapes = []
    for position, tensor in enumerate(tensors):
        sizes: dict[int, Any] = {}
        folded = heads_in_batch and position > 0 and _heads_in_batch(tensor, tensors[0])
        for axis in (0, 2) if position in cached else (0, 1, 2) if folded else varying_axes(tensor):
            size = tensor.shape[axis]
            if folded and axis == 0:
                tensor = _grow(tensor, axis, size // batch * new_batch)
            elif axis == 0 and size == batch:
                tensor = _grow(tensor, axis, new_batch)
            elif axis > 0 and (new := past if cached.get(position) == SELF else grown.get(size)):
                tensor = _grow(tensor, axis, new)
            elif axis > 1 and image and 1 != size == image[axis - 2]:
                tensor = _grow(tensor, axis, size + 32 * (axis - 1))  # strides divide the step
            if tensor.shape[axis] != 1:
                sizes[axis] = torch.export.Dim.AUTO
        example.append(tensor)
        shapes.append(sizes)
    return example, shapes


def _heads_in_batch(tensor: Tensor, first: Tensor) -> bool:
    """Whether a tensor may have an entry for each head of each sequence in its first axis."""
    batch = first.shape[0] if first.dim() else 0
    is_multiple = tensor.dim() == 3 and batch > 0 and tensor.shape[0] > batch and tensor.shape[0] % batch == 0
    return is_multiple and tensor.is_floating_point()


def _larger(
    tensors: list[Tensor], batch: int, taken: set[int], cached: Mapping[int, str]
) -> tuple[int, dict[int, int], int]:
    """A new batch, new sizes by old ones, and a new number of states in the cache."""
    length = tensors[0].shape[1] if 1 in varying_axes(tensors[0]) else 0
    states = next((tensors[i].shape[2] for i, place in cached.items() if place == SELF), 0)
    new_length = length
    if not (states and length == 1):
        new_length = _free(length + 1, taken)
    new_states = states
    if states:
        new_states = states + 1
        while {new_states, new_states + new_length} & (taken | {new_length}):
            new_states += 1
    new_batch = _free(batch + 1, taken | {new_length, new_states, new_states + new_length})
    grown = {states + length: new_states + new_length} if states else {}
    if new_length != length:
        grown[length] = new_length
    return new_batch, grown, new_states


def _free(size: int, taken: set[int]) -> int:
    while size in taken:
        size += 1
    return size


def is_image(tensor: Tensor) -> bool:
    """Whether the first tensor of a call is one of images."""
    return tensor.dim() == 4 and tensor.is_floating_point()


def varying_axes(tensor: Tensor) -> tuple[int, ...]:
    """The axes that may be a batch or a length, see `other_shapes`."""
    if tensor.dim() == 4:
        return (0, 2, 3)
    if tensor.dim() == 3 and not tensor.is_floating_point():
        return (1, 2) if tensor.shape[0] == 1 else (0, 1, 2)  # a matrix of positions, perhaps one for all the batch
    if tensor.dim() == 3 or (tensor.dim() == 2 and not tensor.is_floating_point()):
        return (0, 1)
    return (0,) if tensor.dim() else ()


def _grow(tensor: Tensor, axis: int, size: int) -> Tensor:
    index = torch.arange(size) % max(tensor.shape[axis], 1)
    return tensor.index_select(axis, index)


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _detach(exported: ExportedProgram, output: Key, own: set[str]) -> Captured:
    """The graph of an exported program, which takes the module's tensors as arguments, with `get_attr` nodes in their place.

    `exported.module()` does so too, and writes Python for several copies of the graph on the way.
    """
    root = exported.graph_module
    held: dict[str, Any] = {**exported.state_dict, **exported.constants}
    graph = root.graph
    targets = {s.arg.name: s.target for s in exported.graph_signature.input_specs if s.kind is not InputKind.USER_INPUT}
    for node in graph.find_nodes(op="placeholder"):
        if node.name not in targets:
            continue
        with graph.inserting_before(node):
            attribute = graph.get_attr(targets[node.name])
        attribute.meta = node.meta
        node.replace_all_uses_with(attribute)
        graph.erase_node(node)
    graph.set_codegen(torch.fx.graph.CodeGen())
    constants = {}
    for node in graph.nodes:
        node.meta = {"val": shaped(node.meta.get("val"))}
        if node.op == "get_attr":
            name = node.target.removeprefix(_PREFIX)
            if name != node.target and name in own:
                node.target = name
            else:  # torch.export registers some of the tensors that a forward creates on the module
                value = held[node.target] if node.target in held else attribute(root, node.target)
                while node.target in own:  # a tensor of the module may have such a name too
                    node.target += "_"
                constants[node.target] = value
        elif node.op == "call_module":
            raise NotCapturable(f"its graph calls {node.target}")
    # Assertions only say of which dtype a value is, which the guard key does. A module that asks for `weight.dtype` has the graph compute
    # a float weight that nothing else reads.
    drop_dead(graph, torch.ops.aten._assert_tensor_metadata.default)
    return Captured(graph, output, constants)


def graph_results(graph: fx.Graph) -> Sequence[fx.Node]:
    """The nodes whose values a graph returns."""
    return next(iter(graph.find_nodes(op="output"))).args[0]


def explain(error: Exception) -> str:
    """An error as one line: its class, its first line, and where in the model's source it was raised; of `NotCapturable` the reason."""
    if isinstance(error, NotCapturable):
        return str(error)
    text = str(error).strip().splitlines()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_NOT_THE_USERS)]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {text[0][:160] if text else 'no message'}{where}"
