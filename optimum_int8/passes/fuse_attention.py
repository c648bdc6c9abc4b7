"""Run the attention core on rows as the projections wrote them: INT8 from the linear to the core, no transposes."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from .. import numerics
from ..fx.rewrite import (
    add_call,
    add_columns,
    add_constant,
    add_derived,
    add_item,
    aten,
    drop_dead,
    is_call,
    named,
    only_user,
    ours,
    shape_of,
    swaps_heads,
)
from ..fx.roles import add_quantizing_form, has_role, quantizing_form
from ..operators import LINEAR


def fuse_attention(graph_module: fx.GraphModule) -> int:
    """Needs: merged projections. Leaves: `attention_rows` on uint8 columns of one linear. Preserves: bits.

    Rewrites an INT8 core whose queries, keys and values are heads cut from columns of one linear, and whose result is joined to rows.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        if is_call(node, ours.attention.default) and _rewrite(graph_module, node):
            count += 1
    return count


def _rewrite(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    given = named(node)
    query = given["query"]
    key = given["key"]
    value = given["value"]
    scales = [given["query_scale"], given["key_scale"], given["value_scale"]]
    columns = [c for c in map(_columns, (query, key, value)) if c is not None]
    after = only_user(node)
    if len(columns) != 3 or after is None or not joins_heads(after):
        return False
    source = named(columns[0])["self"]
    if any(named(c)["self"] is not source for c in columns) or len(source.users) != 3 or not has_role(source, LINEAR):
        return False
    heads = int(query.meta["val"].shape[1])
    if any(int(x.meta["val"].shape[1]) != heads for x in (key, value)):
        return False
    with graph_module.graph.inserting_before(node):
        rows, all_scales = _quantize(graph_module, source, columns, scales, heads)
        rest = {name: given[name] for name in ("mask", "scaling", "causal")}
        core = add_call(graph_module, ours.attention_rows.default, *rows, *all_scales, heads, heads, **rest)
    after.replace_all_uses_with(core)
    drop_dead(graph_module.graph)
    return True


def _quantize(
    graph_module: fx.GraphModule, source: fx.Node, columns: list[fx.Node], scales: list[fx.Node | None], heads: int
) -> tuple[list[fx.Node], list[fx.Node]]:
    """uint8 columns for queries, keys, values, and their scales."""
    width = int(shape_of(source)[-1])
    bounds = [(int(c.args[2]), int(c.args[3])) for c in columns]  # type: ignore[arg-type]
    head = (bounds[0][1] - bounds[0][0]) // heads
    if scales[0] is None:
        groups = width // head
        both = add_call(graph_module, ours.quantize_groups.default, source, groups)
        quantized = add_item(graph_module, both, 0)
        by_head = add_item(graph_module, both, 1)
        found = [add_columns(graph_module, by_head, a // head, b // head) for a, b in bounds]
    else:
        form = quantizing_form(source)
        assert form is not None  # every linear has one

        def spread(*given: Tensor) -> Tensor:
            per_column = torch.empty(width)
            for (a, b), scale in zip(bounds, given, strict=True):
                per_column[a:b] = scale
            return per_column

        zero_point = torch.tensor(numerics.SYMMETRIC_ZERO_POINT, dtype=torch.int32)
        qparams = (
            add_derived(graph_module, "attention_scales", spread, *[s for s in scales if s is not None]),
            add_constant(graph_module, "attention_zero_point", zero_point),
        )
        quantized = add_quantizing_form(graph_module, form, source, *qparams)
        found = list(scales)  # type: ignore[arg-type]
    rows = [add_columns(graph_module, quantized, a, b) for a, b in bounds]
    return rows, found


def _columns(x: fx.Node) -> fx.Node | None:
    """The columns of a linear that `view(...).transpose(1, 2)` split into heads."""
    if not swaps_heads(x):
        return None
    view = named(x)["self"]
    if (
        not is_call(view, aten.view.default, aten.reshape.default)
        or len(shape_of(view)) != 4
        or only_user(view) is not x
    ):
        return None
    piece = named(view)["self"]
    is_cut = (
        is_call(piece, aten.slice.Tensor)
        and named(piece)["dim"] == -1
        and len(shape_of(piece)) == 3
        and only_user(piece) is view
    )
    return piece if is_cut else None


def joins_heads(node: fx.Node) -> bool:
    """Whether the node joins `[batch, length, heads, head]` to rows."""
    return is_call(node, aten.view.default, aten.reshape.default, aten.flatten.using_ints) and len(shape_of(node)) == 3
