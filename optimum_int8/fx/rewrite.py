"""Tools for passes: matching nodes, inserting operators with their shapes, holding new tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

from ..operators import REGISTRY, bind
from .recipe import MOVED, Compared, Derived, Recipe, derive, same_values
from .shapes import Shaped, shaped

aten = torch.ops.aten
ours = torch.ops.optimum_int8


def is_call(node: Any, *targets: Any) -> TypeGuard[fx.Node]:
    """Whether `node` calls one of the operators."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def swaps_heads(node: Any) -> TypeGuard[fx.Node]:
    """Whether `node` exchanges axes 1 and 2 of four: heads and lengths."""
    if not is_call(node, aten.transpose.int) or len(shape_of(node)) != 4:
        return False
    given = named(node)
    return {int(given["dim0"]) % 4, int(given["dim1"]) % 4} == {1, 2}


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that uses `node`, None if there are several or none."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def tensor_of(graph_module: fx.GraphModule, node: Any) -> Tensor | None:
    """The tensor behind a `get_attr` node. Whoever reads values of it has each sibling compiled by itself: see `same_constant` and
    `add_derived`; shapes and dtypes stand in `node.meta["val"]`."""
    if not is_constant(node):
        return None
    Recipe.of(graph_module).is_complete = False
    return attribute(graph_module, str(node.target))


def attribute(root: Any, target: str) -> Any:
    """What a module calls `target`, with dots."""
    for name in target.split("."):
        root = getattr(root, name)
    return root


def is_constant(node: Any) -> TypeGuard[fx.Node]:
    """Whether a node is a tensor of the module, which a program can hold."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def same_constant(graph_module: fx.GraphModule, a: Any, b: Any) -> bool:
    """Whether two arguments are the same node, the same number, or tensors of equal values."""
    if a is b:
        return True
    if not (is_constant(a) and is_constant(b)):
        return False
    names = str(a.target), str(b.target)
    found = same_values(*[attribute(graph_module, name) for name in names])
    Recipe.of(graph_module).steps.append(Compared(*names, found))
    return found


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """Shape of a tensor node: numbers, and the names of sizes that differ from call to call."""
    return tuple(node.meta["val"].shape)


def add_constant(graph_module: fx.GraphModule, name: str, tensor: Tensor) -> fx.Node:
    """A new buffer and its `get_attr` node, at the graph's insertion point. A tensor that depends on others of the graph is a derived one."""
    return add_derived(graph_module, name, lambda: tensor)


def add_derived(graph_module: fx.GraphModule, name: str, compute: Callable[..., Tensor], *sources: fx.Node) -> fx.Node:
    """A new buffer and its `get_attr` node, at the insertion point: what `compute` gives for the tensors behind `sources`. It is
    computed again for each sibling."""
    unique = name
    while hasattr(graph_module, unique):
        unique += "_"
    names = tuple([str(source.target) for source in sources])
    tensor, moved = derive(compute, [attribute(graph_module, source) for source in names])
    graph_module.meta.setdefault(MOVED, []).extend(moved)
    Recipe.of(graph_module).steps.append(Derived(unique, compute, names))
    graph_module.register_buffer(unique, tensor, persistent=False)
    node = graph_module.graph.get_attr(unique)
    node.meta["val"] = shaped(tensor)
    return node


def add_call(graph_module: fx.GraphModule, target: Any, *args: Any, **given: Any) -> fx.Node:
    """A new call of an operator of ours at the insertion point, with the shape of its result; its arguments stand in the order of the
    schema, defaults filled in.

    Raises:
        TypeError: an argument that the operator does not have.
    """
    arguments = bind(target, args, given)
    node = graph_module.graph.call_function(target, tuple(arguments.values()))
    operator = REGISTRY[target._schema.name.removeprefix("optimum_int8::")]
    node.meta["val"] = operator.fake(**fx.map_arg(arguments, lambda n: n.meta["val"]))
    return node


def add_columns(graph_module: fx.GraphModule, node: fx.Node, start: int, stop: int) -> fx.Node:
    """Columns `start` to `stop` of the last axis."""
    cut = graph_module.graph.call_function(aten.slice.Tensor, (node, -1, start, stop))
    value: Shaped = node.meta["val"]
    cut.meta["val"] = value.new_empty((*value.shape[:-1], stop - start), value.dtype)
    return cut


def add_item(graph_module: fx.GraphModule, node: fx.Node, index: int) -> fx.Node:
    """`node[index]` of an operator with several results."""
    import operator

    item = graph_module.graph.call_function(operator.getitem, (node, index))
    item.meta["val"] = node.meta["val"][index]
    return item


def replace_results(graph_module: fx.GraphModule, node: fx.Node, results: Sequence[fx.Node]) -> None:
    """Let the users of `node`, or of the items of its several results, read `results` instead, and erase it."""
    if len(results) == 1:
        node.replace_all_uses_with(results[0])
    else:
        for item in list(node.users):
            item.replace_all_uses_with(results[item.args[1]])  # type: ignore[index]
            graph_module.graph.erase_node(item)
    graph_module.graph.erase_node(node)


def drop_dead(graph: fx.Graph, *also: Any) -> None:
    """Erase nodes that nothing reads, but for inputs and what has effects; of `also` those with effects too. fx's own way looks at every
    node, and lints the graph, which takes more time than the passes do."""
    for node in reversed(graph.nodes):
        if (
            not node.users
            and node.op not in ("placeholder", "output")
            and (is_call(node, *also) or not node.is_impure())
        ):
            graph.erase_node(node)


def both_orders(node: Any, target: Any) -> list[tuple[fx.Node, fx.Node]]:
    """The two values that `node` adds or multiplies (`target`), in both orders; none where it does something else, or one is a number."""
    if not is_call(node, target) or not all(isinstance(argument, fx.Node) for argument in node.args[:2]):
        return []
    first, second = node.args[:2]
    return [(first, second), (second, first)]  # type: ignore[list-item]


def is_last_axis(axis: int, x: fx.Node) -> bool:
    """Whether this is the number of the last axis of `x`, from the front or from the end."""
    return axis in (-1, len(shape_of(x)) - 1)


def named(node: fx.Node) -> dict[str, Any]:
    """The arguments of an operator call by the names of its schema, in its order, defaults filled in: the one way to read a node."""
    return bind(node.target, node.args, node.kwargs)  # type: ignore[arg-type]


def change(node: fx.Node, **changes: Any) -> None:
    """Give an operator call other arguments, by the names of its schema."""
    arguments = {**named(node), **changes}
    node.args = tuple(bind(node.target, (), arguments).values())  # type: ignore[arg-type]
    node.kwargs = {}
