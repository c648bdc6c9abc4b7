"""One linear for several that read the same quantized value (queries, keys and values)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.weak import WeakTensorKeyDictionary

from ..fx import MOVED
from ..fx.rewrite import add_call, add_columns, add_constant, named, tensor_of
from ..fx.roles import has_role
from ..kernels import PANEL
from ..operators import LINEAR
from .fuse_activation import activation_of

# By the first of the panels, so that each graph of a model finds the same tensor.
_joined: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def merge_projections(graph_module: fx.GraphModule) -> int:
    """Needs: shared quantizations. Leaves: one linear per quantized value, cut into columns. Preserves: bits.

    Concatenating outputs is concatenating panels, which needs whole panels: widths that are not a multiple of 32 stay alone. So do linears that take
    the activation after them.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        readers = [u for u in node.users if _mergeable(graph_module, u, node)]
        group = [u for u in readers if u.target is readers[0].target]
        if len(group) > 1:
            _merge(graph_module, group)
            count += 1
    return count


def _mergeable(graph_module: fx.GraphModule, user: fx.Node, source: fx.Node) -> bool:
    if not has_role(user, LINEAR) or named(user)["x"] is not source or activation_of(user) is not None:
        return False
    weight_scale = tensor_of(graph_module, named(user)["weight_scale"])
    return weight_scale is not None and weight_scale.shape[0] % PANEL == 0


def _merge(graph_module: fx.GraphModule, group: list[fx.Node]) -> None:
    parts: list[dict[str, Any]] = [
        {name: tensor_of(graph_module, named(node)[name]) for name in (*_WEIGHT, "bias")} for node in group
    ]
    widths = [part["weight_scale"].shape[0] for part in parts]
    zeros = [torch.zeros(width) for width in widths]
    biases = [zero if part["bias"] is None else part["bias"] for part, zero in zip(parts, zeros, strict=True)]
    before = [part["panels"].data_ptr() for part in parts]
    order = {node: i for i, node in enumerate(graph_module.graph.nodes)}
    with graph_module.graph.inserting_before(min(group, key=order.__getitem__)):
        weight = {
            name: add_constant(graph_module, f"merged_{name}", join([part[name] for part in parts]))
            for name, join in _WEIGHT.items()
        }
        after = [part["panels"].data_ptr() for part in parts]
        graph_module.meta.setdefault(MOVED, []).extend(zip(before, after, strict=True))
        has_bias = any(part["bias"] is not None for part in parts)
        bias = add_constant(graph_module, "merged_bias", torch.cat(biases)) if has_bias else None
        arguments = {**named(group[0]), **weight, "bias": bias, "activation": "none"}
        merged = add_call(graph_module, group[0].target, **arguments)
        start = 0
        for node, width in zip(group, widths, strict=True):
            piece = add_columns(graph_module, merged, start, start + width)
            node.replace_all_uses_with(piece)
            start += width
    for node in group:
        graph_module.graph.erase_node(node)


def join_panels(parts: list[Tensor]) -> Tensor:
    """The panels of several linears one after another. From then on the linears' own are pieces of them: the bytes are there once.

    Panels belong to their modules alone, and a program that reads the old ones holds their storage.
    """
    known = _joined.get(parts[0])
    if known is not None and _are_pieces(parts, known):
        return known
    joined = torch.cat(parts)
    if not any(part.is_inference() for part in parts):
        for part, piece in zip(parts, joined.split([len(part) for part in parts]), strict=True):
            part.data = piece
        _joined[parts[0]] = joined
    return joined


def _are_pieces(parts: list[Tensor], whole: Tensor) -> bool:
    pieces = whole.split([len(part) for part in parts]) if sum(map(len, parts)) == len(whole) else ()
    return len(pieces) == len(parts) and all(
        part.data_ptr() == piece.data_ptr() for part, piece in zip(parts, pieces, strict=True)
    )


_WEIGHT: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "panels": join_panels,
    "weight_sum": torch.cat,
    "weight_scale": torch.cat,
}
"""What the weight of a linear consists of, and how that of several is made from it."""
