"""Fold a batch norm in evaluation into the convolution before it."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from ..fx.rewrite import add_constant, arguments, aten, is_call, only_user, ours, tensor_of

_VIEWS = (aten.permute.default, aten.squeeze.dim)


def fold_batch_norm(graph_module: fx.GraphModule) -> int:
    """Needs: nothing. Leaves: convolutions whose weight scales and bias include the norm, with or without affine, where only the norm reads
    them. Preserves: values up to rounding; the int8 weights stay."""
    count = 0
    for node in list(graph_module.graph.nodes):
        conv = _convolution(node)
        affine = None if conv is None else _affine(graph_module, node)
        if affine is None:
            continue
        _fold(graph_module, conv, *affine)  # type: ignore[arg-type]
        node.replace_all_uses_with(node.args[0])
        graph_module.graph.erase_node(node)
        count += 1
    return count


def _convolution(node: fx.Node) -> fx.Node | None:
    """The plain convolution of which a batch norm, and nothing else, reads the result as torch lays it out."""
    if not is_call(node, aten.batch_norm.default):
        return None
    source, user = node.args[0], node
    while is_call(source, *_VIEWS) and only_user(source) is user:  # type: ignore[arg-type]
        source, user = source.args[0], source  # type: ignore[union-attr, assignment]
    plain = is_call(source, ours.conv.default) and only_user(source) is user and user is not node  # type: ignore[arg-type]
    return source if plain and arguments(source)[9] == "none" and arguments(source)[11] is None else None  # type: ignore


def _affine(graph_module: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor] | None:
    """Factor and shift of each channel; None when the norm measures the batch."""
    _, weight, bias, mean, variance, training, _, eps = arguments(node)[:8]
    statistics = tensor_of(graph_module, mean), tensor_of(graph_module, variance)
    if training or any(s is None for s in statistics):
        return None
    average, var = (s.to(torch.float64) for s in statistics)  # type: ignore[union-attr]
    factor = 1.0 / torch.sqrt(var + eps)
    if weight is not None:
        factor = factor * tensor_of(graph_module, weight).to(torch.float64)  # type: ignore[union-attr]
    shift = -average * factor
    return factor, shift if bias is None else shift + tensor_of(graph_module, bias).to(torch.float64)  # type: ignore


def _fold(graph_module: fx.GraphModule, conv: fx.Node, factor: Tensor, shift: Tensor) -> None:
    values = arguments(conv)
    scale, bias = tensor_of(graph_module, values[5]), tensor_of(graph_module, values[6])
    moved = shift if bias is None else bias.to(torch.float64) * factor + shift
    with graph_module.graph.inserting_before(conv):
        values[5] = add_constant(graph_module, "folded_scale", (scale * factor).to(torch.float32))  # type: ignore[operator]
        values[6] = add_constant(graph_module, "folded_bias", moved.to(torch.float32))
    conv.args, conv.kwargs = tuple(values), {}
