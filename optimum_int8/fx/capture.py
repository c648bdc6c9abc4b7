"""From a module and one real call to an FX graph with dynamic batch and sequence, through `torch.export`."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from .arguments import Key, NotCapturable, flatten_output, rebuild
from .shapes import shaped

_PREFIX = "block."
_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent), "<")
"""Files whose lines say nothing to a user: torch, this package, generated code."""


@dataclass
class Captured:
    """A graph whose `get_attr` targets are relative to its module, so that it can be bound to a sibling."""

    graph: fx.Graph
    output: Key
    constants: dict[str, Any]  # tensors the graph made for itself
    image: tuple[int, ...] | None = None  # height and width of the first tensor, where no other would do

    def bind(self, module: nn.Module) -> fx.GraphModule:
        """The graph on the tensors of `module`."""
        graph = fx.Graph()
        graph.output(graph.graph_copy(self.graph, {}))
        attributes = {}
        for node in graph.nodes:
            if node.op == "get_attr":
                own = self.constants.get(node.target)
                attributes[node.target] = _attribute(module, node.target) if own is None else own
        return fx.GraphModule(attributes, graph)


def capture(module: nn.Module, forward: Callable[..., Any], key: Key, tensors: list[Tensor]) -> Captured:
    """Export one call. The graph takes the call's tensors and returns a tuple of tensors.

    Args:
        forward: the module's own forward, bound.
        key, tensors: of the call, from `flatten`. The graph is made at another batch and length than theirs, so that running it on
            them is a check at a second shape.

    Raises:
        NotCapturable: with the reason and, where there is one, the line of the model's source.
    """
    image = tuple(tensors[0].shape[2:]) if tensors and _is_image(tensors[0]) else None
    if image is None:
        return _export(module, forward, key, *other_shapes(tensors))
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
    level = logging.getLogger("torch.export").level
    try:
        logging.getLogger("torch.export").setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(wrapper, (example,), strict=False, dynamic_shapes=(shapes,))
            graph_module = exported.module(check_guards=False)
    except NotCapturable:
        raise
    except Exception as error:  # torch.export raises many kinds; each only means that this module stays as it is
        raise NotCapturable(_explain(error)) from error
    finally:
        logging.getLogger("torch.export").setLevel(level)
    return _detach(graph_module, outputs[0])


class _Call(nn.Module):
    def __init__(self, module: nn.Module, forward: Callable[..., Any], key: Key, outputs: list[Key]) -> None:
        super().__init__()
        self.block = module
        self.call, self.key, self.outputs = forward, key, outputs

    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        args, kwargs = rebuild(self.key, tensors)
        output, results = flatten_output(self.call(*args, **kwargs))
        self.outputs.append(output)
        return tuple(results)


def other_shapes(tensors: list[Tensor], image: tuple[int, ...] = ()) -> tuple[list[Tensor], list[dict[int, Any]]]:
    """Examples at a larger batch and length, and the dynamic axes of each.

    Axis 0 is the batch; the length is axis 1 of the first tensor, and where its size turns up in axis 1 of integers and of 3-D
    tensors or in the last two of 4-D ones. With `image`, the height and width
    of the first tensor, its last two axes grow too. An axis of size 1 that is not the batch's or the length's broadcasts and stays 1.
    """
    if not tensors:
        raise NotCapturable("the call has no tensor")
    first = tensors[0].shape
    batch = first[0] if first else 0
    length = first[1] if 1 in _axes(tensors[0]) else 0
    new_batch, new_length = batch + 1, length + 1
    taken = {size for t in tensors for size in t.shape}
    while new_length in taken | {1}:
        new_length += 1
    while new_batch in taken | {new_length, 1}:
        new_batch += 1
    example, shapes = [], []
    for tensor in tensors:
        sizes: dict[int, Any] = {}
        for axis in _axes(tensor):
            size = tensor.shape[axis]
            if size == (batch if axis == 0 else length):
                tensor = _grow(tensor, axis, new_batch if axis == 0 else new_length)
            elif axis > 1 and image and 1 != size == image[axis - 2]:
                tensor = _grow(tensor, axis, size + 32 * (axis - 1))  # strides divide the step
            if tensor.shape[axis] != 1:
                sizes[axis] = torch.export.Dim.AUTO
        example.append(tensor)
        shapes.append(sizes)
    return example, shapes


def _is_image(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_floating_point()


def _axes(tensor: Tensor) -> tuple[int, ...]:
    if tensor.dim() == 4:
        return (0, 2, 3)
    if tensor.dim() == 3 or (tensor.dim() == 2 and not tensor.is_floating_point()):
        return (0, 1)
    return (0,) if tensor.dim() else ()


def _grow(tensor: Tensor, axis: int, size: int) -> Tensor:
    index = torch.arange(size) % max(tensor.shape[axis], 1)
    return tensor.index_select(axis, index)


def _detach(graph_module: fx.GraphModule, output: Key) -> Captured:
    graph = graph_module.graph
    graph.set_codegen(torch.fx.graph.CodeGen())
    constants = {}
    for node in graph.nodes:
        node.meta = {"val": shaped(node.meta.get("val"))}
        if node.op == "get_attr":
            if node.target.startswith(_PREFIX):
                node.target = node.target.removeprefix(_PREFIX)
            else:
                constants[node.target] = _attribute(graph_module, node.target)
        elif node.op == "call_module":
            raise NotCapturable(f"its graph calls {node.target}")
    return Captured(graph, output, constants)


def _attribute(root: Any, target: str) -> Any:
    for name in target.split("."):
        root = getattr(root, name)
    return root


def _explain(error: Exception) -> str:
    text = str(error).strip().splitlines()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_NOT_THE_USERS)]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {text[0][:160] if text else 'no message'}{where}"
