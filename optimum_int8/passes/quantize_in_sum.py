"""Sums and concatenations whose result is read as INT8 go straight to uint8 with the reader's scale and zero point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from ..fx.rewrite import add_call, aten, is_call, named, ours, same_constant, shape_of


def quantize_in_sum(graph_module: fx.GraphModule) -> int:
    """Needs: values channels-last. Leaves: sums of INT8 values that write uint8, concatenations of uint8. Preserves: bits.

    Quantizing each value of a concatenation is quantizing the concatenation; the parts' producers can then write uint8. A part that has
    these parameters already is copied as bytes; a value that comes from uint8 with the reader's own parameters needs no step at all.
    """
    count = 0
    waiting = [node for node in graph_module.graph.nodes if is_call(node, ours.quantize.default)]
    while waiting:
        node = waiting.pop()
        source = named(node)["x"]
        rewrite = _REWRITES.get(source.target) if isinstance(source, fx.Node) and source.op == "call_function" else None
        if rewrite is None or not all(is_call(user, ours.quantize.default) for user in source.users):
            continue
        with graph_module.graph.inserting_before(node):
            new, more = rewrite(graph_module, source, named(node)["scale"], named(node)["zero_point"])
        if new is None:
            continue
        node.replace_all_uses_with(new)
        graph_module.graph.erase_node(node)
        waiting += more
        count += 1
    return count


Rewritten = tuple["fx.Node | None", "list[fx.Node]"]
"""What takes the quantization's place, and new quantizations."""


def _dequantized(graph_module: fx.GraphModule, source: fx.Node, scale: Any, zero_point: Any) -> Rewritten:
    given = named(source)
    same_scale = same_constant(graph_module, given["scale"], scale)
    if same_scale and same_constant(graph_module, given["zero_point"], zero_point):
        return given["q"], []
    return _concatenate(graph_module, [given], scale, zero_point), []


def _added(graph_module: fx.GraphModule, source: fx.Node, scale: Any, zero_point: Any) -> Rewritten:
    given = named(source)
    if shape_of(given["x"]) != shape_of(given["y"]):
        return None, []
    output = {"output_scale": scale, "output_zero_point": zero_point}
    return add_call(graph_module, ours.add_quantized.default, **given, **output), []


def _concatenated(graph_module: fx.GraphModule, source: fx.Node, scale: Any, zero_point: Any) -> Rewritten:
    parts, axis = named(source).values()
    rank = len(shape_of(source))
    if axis not in (-1, rank - 1) or any(len(shape_of(part)) != rank for part in parts):
        return None, []
    quantized: list[dict[str, Any]] = []
    new = []
    for part in parts:
        if is_call(part, ours.dequantize.default):
            quantized.append(named(part))
        else:
            new.append(add_call(graph_module, ours.quantize.default, part, scale, zero_point))
            quantized.append({"q": new[-1], "scale": scale, "zero_point": zero_point})
    return _concatenate(graph_module, quantized, scale, zero_point), new


def _concatenate(graph_module: fx.GraphModule, parts: list[dict[str, Any]], scale: Any, zero_point: Any) -> fx.Node:
    """uint8 parts with scales and zero points of their own."""
    return add_call(
        graph_module,
        ours.cat_quantized.default,
        parts=[part["q"] for part in parts],
        scales=[part["scale"] for part in parts],
        zero_points=[part["zero_point"] for part in parts],
        output_scale=scale,
        output_zero_point=zero_point,
    )


_REWRITES: dict[Any, Callable[[fx.GraphModule, fx.Node, Any, Any], Rewritten]] = {
    ours.dequantize.default: _dequantized,
    ours.add.default: _added,
    aten.cat.default: _concatenated,
}
