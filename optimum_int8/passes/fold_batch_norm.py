"""Fold what a batch norm in evaluation does into the convolution before it: a factor and a shift of each channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ..fx.rewrite import add_constant, aten, change, is_call, is_constant, named, only_user, shape_of, tensor_of
from ..fx.roles import has_role
from ..fx.shapes import Shaped
from ..operators import CONVOLUTION

_VIEWS = (aten.permute.default, aten.squeeze.dim)
_ON_CONSTANTS = (
    aten.reshape.default,
    aten.view.default,
    aten.unsqueeze.default,
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.neg.default,
    aten.rsqrt.default,
    aten.sqrt.default,
    aten.reciprocal.default,
)
_NUMBERS = (int, float, list, tuple)
_Affine = tuple[Tensor | None, Tensor | None]


def fold_batch_norm(graph_module: fx.GraphModule) -> int:
    """Needs: nothing. Leaves: convolutions whose weight scales and bias include the norm, with or without affine, where only the norm reads
    them. Preserves: values up to rounding; the int8 weights stay.

    A norm that a detector froze is `x * scale + shift`, both computed from its buffers: every product with, and sum of, constants of one number
    per channel folds, in any class.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        if not is_call(node, aten.batch_norm.default, aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor):
            continue
        source, affine = _affine(graph_module, node)
        conv = None if affine is None else _convolution(source, node)
        if affine is None or conv is None:
            continue
        _fold(graph_module, conv, *affine)
        node.replace_all_uses_with(source)
        graph_module.graph.erase_node(node)
        count += 1
    return count


def _convolution(source: Any, user: fx.Node) -> fx.Node | None:
    """The plain convolution whose result `user`, and nothing else, reads, in torch's layout."""
    norm = user
    while is_call(source, *_VIEWS) and only_user(source) is user:
        source, user = source.args[0], source
    plain = has_role(source, CONVOLUTION) and only_user(source) is user and user is not norm
    if not plain:
        return None
    given = named(source)
    return source if given["activation"] == "none" and given["residual"] is None else None


def _affine(graph_module: fx.GraphModule, node: fx.Node) -> tuple[Any, _Affine | None]:
    """What a node reads, and the factor and shift of each channel that it gives it; None when it does something else."""
    if is_call(node, aten.batch_norm.default):
        return node.args[0], _norm(graph_module, node)
    if node.kwargs.get("alpha", 1) != 1:
        return None, None
    for source, other in (node.args, node.args[::-1]):
        given = _per_channel(graph_module, node, other)
        if given is None or not isinstance(source, fx.Node):
            continue
        if is_call(node, aten.sub.Tensor):
            return source, ((None, -given) if source is node.args[0] else None)
        return source, ((given, None) if is_call(node, aten.mul.Tensor) else (None, given))
    return None, None


def _per_channel(graph_module: fx.GraphModule, node: fx.Node, other: Any) -> Tensor | None:
    """A constant of one number per channel (the second axis) of what `node` computes."""
    shape = shape_of(node)
    value = other.meta["val"] if isinstance(other, fx.Node) and len(shape) > 2 else None
    if not isinstance(value, Shaped) or not value.is_floating_point():
        return None
    channels = [1] * (len(shape) - value.dim()) + list(value.shape)
    if channels[1:2] != [shape[1]] or any(n != 1 for i, n in enumerate(channels) if i != 1):
        return None
    found = constant(graph_module, other)  # only now: whoever reads values has siblings compiled one by one
    return None if found is None else found.flatten().to(torch.float64)


def depends_on_constants(node: Any) -> bool:
    """Whether tensors of the module alone decide what a node computes, in a way that `constant` knows."""
    if not is_call(node, *_ON_CONSTANTS) or node.kwargs:
        return is_constant(node)
    numbers = all(depends_on_constants(a) if isinstance(a, fx.Node) else isinstance(a, _NUMBERS) for a in node.args)
    return numbers and all(isinstance(n, int) for a in node.args if isinstance(a, (list, tuple)) for n in a)


def constant(graph_module: fx.GraphModule, node: Any) -> Tensor | None:
    """The value of a node that tensors of the module alone decide."""
    if not depends_on_constants(node):
        return None
    if is_constant(node):
        return tensor_of(graph_module, node)
    compute: Any = node.target
    return compute(*[constant(graph_module, a) if isinstance(a, fx.Node) else a for a in node.args])


def _norm(graph_module: fx.GraphModule, node: fx.Node) -> _Affine | None:
    """Of a batch norm; None when it measures the batch."""
    given = named(node)
    weight = given["weight"]
    bias = given["bias"]
    statistics = tensor_of(graph_module, given["running_mean"]), tensor_of(graph_module, given["running_var"])
    if given["training"] or any(s is None for s in statistics):
        return None
    average, var = (s.to(torch.float64) for s in statistics)  # type: ignore[union-attr]
    factor = 1.0 / torch.sqrt(var + given["eps"])
    if weight is not None:
        factor = factor * tensor_of(graph_module, weight).to(torch.float64)  # type: ignore[union-attr]
    shift = -average * factor
    return factor, shift if bias is None else shift + tensor_of(graph_module, bias).to(torch.float64)  # type: ignore


def _fold(graph_module: fx.GraphModule, conv: fx.Node, factor: Tensor | None, shift: Tensor | None) -> None:
    given = named(conv)
    scale = tensor_of(graph_module, given["weight_scale"])
    bias = tensor_of(graph_module, given["bias"])
    moved = None if bias is None else bias.to(torch.float64)
    if factor is not None and moved is not None:
        moved = moved * factor
    if shift is not None:
        moved = shift if moved is None else moved + shift
    with graph_module.graph.inserting_before(conv):
        if factor is not None:
            folded = (scale * factor).to(torch.float32)  # type: ignore[operator]
            change(conv, weight_scale=add_constant(graph_module, "folded_scale", folded))
        if moved is not None:
            change(conv, bias=add_constant(graph_module, "folded_bias", moved.to(torch.float32)))
