"""Fold an activation function into the linear that feeds it."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import fx

from ..fx.rewrite import aten, change, is_call, named, only_user
from ..fx.roles import has_role
from ..operators import LINEAR

_ACTIVATIONS = {aten.relu.default: "relu", aten.silu.default: "silu", aten.tanh.default: "tanh"}


def fuse_activation(graph_module: fx.GraphModule) -> int:
    """Needs: nothing. Leaves: linears with their activation. Preserves: values up to the activation's polynomial (numerics)."""
    count = 0
    for node in list(graph_module.graph.nodes):
        if not has_role(node, LINEAR) or named(node)["activation"] != "none":
            continue
        found = activation_of(node)
        if found is None:
            continue
        name, last = found
        change(node, activation=name)
        inner = [n for n in graph_module.graph.nodes if n is not node and n is not last and node in n.all_input_nodes]
        last.replace_all_uses_with(node)
        graph_module.graph.erase_node(last)
        _erase_dead(graph_module.graph, inner)
        count += 1
    return count


class Activation(NamedTuple):
    """An activation function by its name in `numerics.ACTIVATIONS`, and the node that computes its result."""

    name: str
    last: fx.Node


def activation_of(node: fx.Node) -> Activation | None:
    """The activation that alone reads `node`, None where there is none."""
    found = _simple(node) or _gelu_formula(node) or _gelu_factored(node)
    return None if found is None else Activation(*found)


def _simple(node: fx.Node) -> tuple[str, fx.Node] | None:
    user = only_user(node)
    if user is None:
        return None
    if is_call(user, aten.gelu.default):
        return ("gelu_tanh" if named(user)["approximate"] == "tanh" else "gelu"), user
    return (_ACTIVATIONS[user.target], user) if is_call(user, *_ACTIVATIONS) else None  # type: ignore[index]


def _gelu_formula(x: fx.Node) -> tuple[str, fx.Node] | None:
    """`0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3)))`, as Transformers' `NewGELUActivation` writes it."""
    cube = next((u for u in x.users if is_call(u, aten.pow.Tensor_Scalar) and u.args[1] == 3.0), None)
    node = _step(cube, aten.mul.Tensor, 0.044715)
    node = _step(node, aten.add.Tensor, x)
    node = _step(node, aten.mul.Tensor, math.sqrt(2.0 / math.pi))
    node = only_user(node) if node is not None and is_call(only_user(node), aten.tanh.default) else None
    node = _step(node, aten.add.Tensor, 1.0)
    last = only_user(node) if node is not None else None
    half = next((u for u in x.users if is_call(u, aten.mul.Tensor) and 0.5 in u.args), None)
    if last is None or half is None or not is_call(last, aten.mul.Tensor) or half not in last.args or len(x.users) != 3:
        return None
    return "gelu_tanh", last


def _gelu_factored(x: fx.Node) -> tuple[str, fx.Node] | None:
    """The same as `0.5 x (1 + tanh(sqrt(2 / pi) x (1 + 0.044715 x x)))`, as BLOOM writes it."""
    square = next((u for u in x.users if is_call(u, aten.mul.Tensor) and _has_number(u, 0.044715)), None)
    wide = next((u for u in x.users if is_call(u, aten.mul.Tensor) and _has_number(u, math.sqrt(2.0 / math.pi))), None)
    half = next((u for u in x.users if is_call(u, aten.mul.Tensor) and 0.5 in u.args), None)
    node = _step(square, aten.mul.Tensor, x)
    node = _step(node, aten.add.Tensor, 1.0)
    if wide is None or half is None or len(x.users) != 4:
        return None
    node = _step(node, aten.mul.Tensor, wide)
    node = only_user(node) if node is not None and is_call(only_user(node), aten.tanh.default) else None
    node = _step(node, aten.add.Tensor, 1.0)
    last = _step(node, aten.mul.Tensor, half)
    return None if last is None else ("gelu_tanh", last)


def _has_number(node: fx.Node, number: float) -> bool:
    return any(isinstance(a, (int, float)) and math.isclose(a, number, rel_tol=1e-7) for a in node.args)


def _step(node: fx.Node | None, target: object, other: object) -> fx.Node | None:
    """The only user of `node` if it is `target` with `other` (a node, or a number to seven digits)."""
    user = None if node is None else only_user(node)
    if user is None or not is_call(user, target):
        return None
    values = [a for a in user.args if a is not node]
    if len(values) != 1:
        return None
    if isinstance(other, float):
        return user if isinstance(values[0], (int, float)) and math.isclose(values[0], other, rel_tol=1e-7) else None
    return user if values[0] is other else None


def _erase_dead(graph: fx.Graph, nodes: list[fx.Node]) -> None:
    for node in nodes:
        chain = [node]
        while chain:
            current = chain.pop()
            if not current.users and current.op == "call_function":
                chain += [n for n in current.all_input_nodes if n.op == "call_function"]
                graph.erase_node(current)
