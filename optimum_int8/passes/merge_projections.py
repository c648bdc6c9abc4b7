"""One linear for several that read the same quantized value (queries, keys and values)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx
from torch.utils.weak import WeakTensorKeyDictionary

from ..fx.rewrite import add_call, add_columns, add_derived, is_constant, named, shape_of
from ..fx.roles import has_role
from ..kernels import PANEL
from ..kernels.large_pages import empty_weight
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
    weight_scale = named(user)["weight_scale"]
    return is_constant(weight_scale) and shape_of(weight_scale)[0] % PANEL == 0


def _merge(graph_module: fx.GraphModule, group: list[fx.Node]) -> None:
    parts = [named(node) for node in group]
    widths = [int(shape_of(part["weight_scale"])[0]) for part in parts]
    order = {node: i for i, node in enumerate(graph_module.graph.nodes)}
    with graph_module.graph.inserting_before(min(group, key=order.__getitem__)):
        weight = {
            name: add_derived(graph_module, f"merged_{name}", join, *[part[name] for part in parts])
            for name, join in _WEIGHT.items()
        }
        bias = _merge_biases(graph_module, [part["bias"] for part in parts], widths)
        arguments = {**parts[0], **weight, "bias": bias, "activation": "none"}
        merged = add_call(graph_module, group[0].target, **arguments)
        start = 0
        for node, width in zip(group, widths, strict=True):
            piece = add_columns(graph_module, merged, start, start + width)
            node.replace_all_uses_with(piece)
            start += width
    for node in group:
        graph_module.graph.erase_node(node)


def _merge_biases(graph_module: fx.GraphModule, biases: list[fx.Node | None], widths: list[int]) -> fx.Node | None:
    """One bias; zeros for a linear without. None where no linear has one."""
    present = [bias for bias in biases if bias is not None]
    has_bias = [bias is not None for bias in biases]

    def join(*given: Tensor) -> Tensor:
        rest = iter(given)
        return torch.cat([next(rest) if has else torch.zeros(n) for has, n in zip(has_bias, widths, strict=True)])

    return add_derived(graph_module, "merged_bias", join, *present) if present else None


def _join(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def join_panels(parts: Sequence[Tensor]) -> Tensor:
    """The panels of several linears one after another. From then on the linears' own are pieces of them: the bytes are there once.

    Panels belong to their modules alone, and a program that reads the old ones holds their storage.
    """
    known = _joined.get(parts[0])
    if known is not None and _are_pieces(parts, known):
        return known
    joined = torch.cat(list(parts), out=empty_weight((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype))
    if not any(part.is_inference() for part in parts):
        for part, piece in zip(parts, joined.split([len(part) for part in parts]), strict=True):
            part.data = piece
        _joined[parts[0]] = joined
    return joined


def _are_pieces(parts: Sequence[Tensor], whole: Tensor) -> bool:
    pieces = whole.split([len(part) for part in parts]) if sum(map(len, parts)) == len(whole) else ()
    return len(pieces) == len(parts) and all(
        part.data_ptr() == piece.data_ptr() for part, piece in zip(parts, pieces, strict=True)
    )


_WEIGHT: dict[str, Callable[..., Tensor]] = {
    "panels": lambda *parts: join_panels(parts),
    "weight_sum": _join,
    "weight_scale": _join,
}
"""What the weight of a linear consists of, and how that of several is made from it."""
