"""Residual paths between convolutions stay INT8: a sum reads a value from the bytes that the next convolution reads."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..fx.rewrite import add_call, aten, is_call, is_constant, only_user, ours, shape_of
from ..fx.roles import has_role, is_quantization
from ..operators import CONVOLUTION, PER_TENSOR
from .channels_last import ACTIVATIONS, TO_FIRST, TO_LAST
from .fold_batch_norm import depends_on_constants

_ON_A_CONVOLUTION = (
    aten.permute.default,
    aten.squeeze.dim,
    aten.batch_norm.default,
    *ACTIVATIONS,
    aten.tanh.default,
)
_WITH_A_CONSTANT = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)


def int8_residuals(graph_module: fx.GraphModule) -> int:
    """Needs: no no-ops. Leaves: sums of a convolution's result, which nothing else reads, and of a value that another convolution reads with static quantization
    parameters: read as `dequantize(quantize(value))`. Preserves: nothing to the bit.

    It defines what a block computes, not how, so that it runs before anything is rewritten, and with or without native kernels. The value is
    rounded as it is for the other convolution: no quantization parameters are added. Sums of other layers keep float32, as does a shortcut that
    is only added: it has no quantization parameters.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        if not is_call(node, aten.add.Tensor, aten.add_.Tensor) or node.kwargs.get("alpha", 1) != 1:
            continue
        for value, other in (node.args[1::-1], node.args[:2]):
            if isinstance(value, fx.Node) and _ends_a_convolution(other, node):
                steps = _to_bytes(value)
                if steps and shape_of(value) == shape_of(other) and not _changes(value, node):  # type: ignore[arg-type]
                    node.args = tuple(
                        _rounded(graph_module, value, steps, node) if a is value else a for a in node.args
                    )
                    count += 1
                    break
    return count


def _ends_a_convolution(node: Any, user: fx.Node) -> bool:
    """Whether `user` alone reads what a convolution made, perhaps normalised and activated: the sum can then be part of it."""
    while isinstance(node, fx.Node) and only_user(node) is user:
        if has_role(node, CONVOLUTION):
            return True
        source = node.args[0] if node.args else None
        if is_call(node, *_WITH_A_CONSTANT):
            varying = [a for a in node.args if isinstance(a, fx.Node) and not depends_on_constants(a)]
            source = varying[0] if len(varying) == 1 else None
        elif not is_call(node, *_ON_A_CONVOLUTION):
            return False
        node, user = source, node
    return False


def _to_bytes(value: fx.Node, taken: tuple[fx.Node, ...] = ()) -> tuple[fx.Node, ...]:
    """The steps from a value to the uint8 that a convolution reads: an axis of height 1 over a sequence, channels last, static quantization, and
    fewer levels where `activation_bits` says so. None where no convolution reads it so."""
    quantized = any(is_quantization(step, PER_TENSOR) for step in taken)
    for user in value.users:
        if not user.args or user.args[0] is not value:
            continue
        if quantized and has_role(user, CONVOLUTION):
            return taken
        if quantized:
            follows = is_call(user, aten.clamp.default)
        elif taken and is_call(value, aten.permute.default):
            follows = is_quantization(user, PER_TENSOR) and all(map(is_constant, user.args[1:]))
        else:
            heightens = not taken and is_call(user, aten.unsqueeze.default) and user.args[1] == 2
            follows = bool(heightens) or (is_call(user, aten.permute.default) and user.args[1] == TO_LAST)
        found = _to_bytes(user, (*taken, user)) if follows else ()
        if found:
            return found
    return ()


def _changes(value: fx.Node, node: fx.Node) -> bool:
    """Whether something writes to a value, or to what it was made in place of, once it is there; the sum too."""
    made = [value]
    while _writes(made[-1]):
        made.append(made[-1].args[0])  # type: ignore[arg-type]
    written = any(_writes(user) and user.args[0] is one and user not in made for one in made for user in one.users)
    return written or (_writes(node) and node.args[0] is value)


def _writes(node: fx.Node) -> bool:
    """Whether an operator works in place, on its first argument."""
    first = next(iter(node.target._schema.arguments), None) if hasattr(node.target, "_schema") else None
    return first is not None and first.alias_info is not None and first.alias_info.is_write


def _rounded(graph_module: fx.GraphModule, value: fx.Node, steps: tuple[fx.Node, ...], node: fx.Node) -> fx.Node:
    """`value` as `steps` round it, in its own layout, before `node`. What is quantized twice by that is shared later."""
    graph = graph_module.graph
    found = {value: value}
    with graph.inserting_before(node):
        for step in steps:
            found[step] = graph.node_copy(step, lambda n: found.get(n, n))
            if is_quantization(step, PER_TENSOR):
                qparams = found[step].args[1:]
        floats = add_call(graph_module, ours.dequantize.default, found[steps[-1]], *qparams)
        out = graph.call_function(aten.permute.default, (floats, TO_FIRST))
        out.meta["val"] = value.meta["val"]
        if is_call(steps[0], aten.unsqueeze.default):
            out.meta["val"] = steps[0].meta["val"]
            out = graph.call_function(aten.squeeze.dim, (out, 2))
            out.meta["val"] = value.meta["val"]
    return out
