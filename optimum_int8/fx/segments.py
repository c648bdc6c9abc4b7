"""Which operators of a graph become one program: those that work row by row, follow each other and have the same leading axes."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..kernels import emit, emit_float, emit_sum
from .rewrite import aten, is_call, is_constant, ours, shape_of, tensor_of

EMITTERS = {
    getattr(ours, name).default: getattr(emit_float if name.startswith("float_") else emit, name)
    for name in (
        "quantize",
        "quantize_rows",
        "quantize_groups",
        "linear",
        "linear_quantized",
        "norm",
        "norm_quantized",
        "norm_quantized_rows",
        "attention_rows",
        "attention_rows_quantized",
        "attention_floats",
        "float_attention_rows",
        "float_attention_rows_quantized",
        "embedding",
        "embedding_add",
    )
} | {
    getattr(ours, name).default: getattr(emit_sum, name)
    for name in ("dequantize", "add", "add_quantized", "cat_quantized")
}
_EMBEDDINGS = (ours.embedding.default, ours.embedding_add.default)
_LINEARS = (ours.linear.default, ours.linear_quantized.default)
FLOATS = ours.attention_floats.default
_FLOAT_CORES = (ours.float_attention_rows.default, ours.float_attention_rows_quantized.default)
ATTENTION = (ours.attention_rows.default, ours.attention_rows_quantized.default, FLOATS, *_FLOAT_CORES)


def mask_place(node: fx.Node) -> int:
    """Position of the mask among an attention's arguments."""
    return [a.name for a in node.target._schema.arguments].index("mask")  # type: ignore[union-attr]


@dataclass
class Segment:
    """Consecutive operators that become one program."""

    lead: tuple[str, ...]
    nodes: list[fx.Node] = field(default_factory=list)
    aliases: list[fx.Node] = field(default_factory=list)
    mask: fx.Node | None = None

    def contains(self, node: Any) -> bool:
        """Whether the program computes `node`."""
        return node in self.nodes or node in self.aliases


def match_dtypes(graph_module: fx.GraphModule) -> None:
    """Programs read float32 and int64 ids; what comes in another dtype (a model in half precision) is cast on the way in."""
    for node in list(graph_module.graph.nodes):
        for argument in node.all_input_nodes if is_call(node, *EMITTERS) else ():
            value = argument.meta["val"]
            is_mask = is_call(node, *ATTENTION) and argument is node.args[mask_place(node)]
            if is_mask or (tensor_of(graph_module, argument) is not None and not is_row_input(node, argument)):
                continue
            wanted = torch.int64 if is_ids(node, argument) else torch.float32
            if value.dtype != wanted and (is_ids(node, argument) or value.is_floating_point()):
                with graph_module.graph.inserting_before(node):
                    cast = graph_module.graph.call_function(aten.to.dtype, (argument, wanted))
                cast.meta["val"] = value.new_empty(value.shape, wanted)
                node.replace_input_with(argument, cast)


def segments(graph_module: fx.GraphModule) -> list[Segment]:
    """The segments of a graph, in order; a segment may have no operator."""
    done: list[Segment] = []
    current: Segment | None = None
    for node in list(graph_module.graph.nodes):
        lead = _lead(node)
        if lead is not None and current is not None and not _fits(current, node, lead):
            done.append(current)
            current = None
        if lead is not None:
            current = current or Segment(lead)
            current.nodes.append(node)
            if is_call(node, *ATTENTION):
                current.mask = current.mask or node.args[mask_place(node)]
        elif current is not None and _is_alias(node) and current.contains(node.args[0]):
            current.aliases.append(node)
        elif current is not None and any(current.contains(used) for used in node.all_input_nodes):
            done.append(current)
            current = None
    return done if current is None else [*done, current]


def _lead(node: fx.Node) -> tuple[str, ...] | None:
    """Leading axes of what an operator computes, None if it cannot be lowered."""
    if not is_call(node, *EMITTERS) or (is_call(node, *_EMBEDDINGS) and node.args[0].meta["val"].dtype != torch.int64):  # type: ignore
        return None
    if is_call(node, *_LINEARS) and not all(a is None or is_constant(a) for a in node.args[3:7]):
        return None
    if adds_unequal(node):
        return None
    value = node.meta["val"]
    shape = (value[0] if isinstance(value, tuple) else value).shape
    return shape[:-1] if type(shape[-1]) is int else None  # rows of one width: not those of a matrix of scores


def _fits(segment: Segment, node: fx.Node, lead: tuple[str, ...]) -> bool:
    if not is_call(node, *ATTENTION):
        return lead == segment.lead
    others = [n for n in segment.nodes if is_call(n, *ATTENTION)]
    other_mask = bool(others) and node.args[mask_place(node)] is not segment.mask
    # a call has one length of keys: another attention, or one whose keys come from the segment itself, begins a new program
    other_keys = bool(others) and any(has_keys_outside(n, segment) for n in (node, *others))
    own_keys = is_call(node, FLOATS) and any(segment.contains(k) for k in node.args[1:3])
    return lead == segment.lead and not other_mask and not other_keys and not own_keys


def has_keys_outside(node: fx.Node, segment: Segment) -> bool:
    """Whether an attention's keys and values come from a cache or from the encoder, so that they have a length of their own."""
    return is_call(node, FLOATS) or (
        is_call(node, *_FLOAT_CORES) and not all(segment.contains(k) for k in node.args[1:3])
    )


def _is_alias(node: fx.Node) -> bool:
    """Whether a node only reads its input differently: an item of several results, or columns of the last axis for attention."""
    if is_call(node, operator.getitem):
        return True
    if not is_call(node, aten.slice.Tensor) or not all(is_call(user, *ATTENTION) for user in node.users):
        return False
    axis = node.args[1] if len(node.args) > 1 else 0
    return axis in (-1, len(shape_of(node.args[0])) - 1) and len(node.args) < 5  # type: ignore[arg-type]


def adds_unequal(node: fx.Node) -> bool:
    """Whether a node adds values of different shapes, which rows cannot."""
    return is_call(node, ours.add.default) and shape_of(node.args[0]) != shape_of(node.args[3])  # type: ignore[arg-type]


def is_ids(node: fx.Node, argument: fx.Node) -> bool:
    """Whether an argument is the ids of an embedding."""
    return is_call(node, *_EMBEDDINGS) and argument is node.args[0]


def is_row_input(node: fx.Node, argument: fx.Node) -> bool:
    """Whether a constant is used as rows: the ids of an embedding, the input of a linear or a norm."""
    return bool(node.args) and argument is node.args[0]
