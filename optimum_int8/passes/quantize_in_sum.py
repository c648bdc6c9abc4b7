"""Sums and concatenations whose result is read as INT8 go straight to uint8 with the reader's scale and zero point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from ..fx.rewrite import add_call, aten, is_call, named, ours, same_constant, shape_of
from ..fx.roles import (
    add_quantizing_form,
    broadcasts,
    has_role,
    is_elementwise,
    is_quantization,
    quantize_as,
    quantizing_form,
)
from ..operators import DEQUANTIZATION, PER_TENSOR


def quantize_in_sum(graph_module: fx.GraphModule) -> int:
    """Needs: values channels-last. Leaves: sums of INT8 values that write uint8, concatenations of uint8. Preserves: bits.

    Quantizing each value of a concatenation is quantizing the concatenation; the parts' producers can then write uint8. A part that has
    these parameters already is copied as bytes; a value that comes from uint8 with the reader's own parameters needs no step at all.
    """
    count = 0
    waiting = [node for node in graph_module.graph.nodes if is_quantization(node, PER_TENSOR)]
    while waiting:
        node = waiting.pop()
        source = named(node)["x"]
        rewrite = _rewrite_for(source)
        if rewrite is None or not all(is_quantization(user, PER_TENSOR) for user in source.users):
            continue
        with graph_module.graph.inserting_before(node):
            new, more = rewrite(graph_module, source, node)
        if new is None:
            continue
        node.replace_all_uses_with(new)
        graph_module.graph.erase_node(node)
        waiting += more
        count += 1
    return count


Rewritten = tuple["fx.Node | None", "list[fx.Node]"]
"""What takes the quantization's place, and new quantizations."""


def _rewrite_for(source: Any) -> Callable[[fx.GraphModule, fx.Node, fx.Node], Rewritten] | None:
    """How the quantization of what `source` computes is left out; None where it cannot be."""
    if has_role(source, DEQUANTIZATION):
        return _dequantized
    if is_elementwise(source) and quantizing_form(source) is not None:
        return _value_by_value
    return _concatenated if is_call(source, aten.cat.default) else None


def _dequantized(graph_module: fx.GraphModule, source: fx.Node, node: fx.Node) -> Rewritten:
    given = named(source)
    wanted = named(node)
    if all(same_constant(graph_module, given[name], wanted[name]) for name in ("scale", "zero_point")):
        return given["q"], []
    return _concatenate(graph_module, [given], node), []


def _value_by_value(graph_module: fx.GraphModule, source: fx.Node, node: fx.Node) -> Rewritten:
    """Computed again for each reader: it reads and writes bytes."""
    form = quantizing_form(source)
    if form is None or broadcasts(source):
        return None, []
    wanted = named(node)
    return add_quantizing_form(graph_module, form, source, wanted["scale"], wanted["zero_point"]), []


def _concatenated(graph_module: fx.GraphModule, source: fx.Node, node: fx.Node) -> Rewritten:
    parts, axis = named(source).values()
    rank = len(shape_of(source))
    if axis not in (-1, rank - 1) or any(len(shape_of(part)) != rank for part in parts):
        return None, []
    quantized: list[dict[str, Any]] = []
    new = []
    for part in parts:
        if has_role(part, DEQUANTIZATION):
            quantized.append(named(part))
        else:
            new.append(quantize_as(graph_module, node, part))
            quantized.append({**named(new[-1]), "q": new[-1]})
    return _concatenate(graph_module, quantized, node), new


def _concatenate(graph_module: fx.GraphModule, parts: list[dict[str, Any]], node: fx.Node) -> fx.Node:
    """uint8 parts with scales and zero points of their own, to those of the quantization `node`."""
    return add_call(
        graph_module,
        ours.cat_quantized.default,
        parts=[part["q"] for part in parts],
        scales=[part["scale"] for part in parts],
        zero_points=[part["zero_point"] for part in parts],
        output_scale=named(node)["scale"],
        output_zero_point=named(node)["zero_point"],
    )
