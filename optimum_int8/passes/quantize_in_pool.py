"""Move a quantization into the average pooling that makes the value, also from behind views of it."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..fx.rewrite import aten, is_call, named, only_user
from ..fx.roles import add_quantizing_form, has_role, is_quantization, quantizing_form
from ..operators import PER_TENSOR, POOLING, Operator

_VIEWS = (
    aten.permute.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.unsqueeze.default,
)


def quantize_in_pool(graph_module: fx.GraphModule) -> int:
    """Needs: nothing. Leaves: average pooling that writes uint8 where only a quantization reads it. Preserves: bits."""
    count = 0
    for node in list(graph_module.graph.nodes):
        if not is_quantization(node, PER_TENSOR):
            continue
        views: list[fx.Node] = []
        source: Any = named(node)["x"]
        user = node
        while is_call(source, *_VIEWS) and only_user(source) is user:
            views.append(source)
            source, user = source.args[0], source
        form = quantizing_form(source) if has_role(source, POOLING) and only_user(source) is user else None
        if form is not None:
            _move(graph_module, node, form, source, views)
            count += 1
    return count


def _move(graph_module: fx.GraphModule, node: fx.Node, form: Operator, pool: fx.Node, views: list[fx.Node]) -> None:
    graph = graph_module.graph
    given = named(node)
    with graph.inserting_before(pool):
        new = add_quantizing_form(graph_module, form, pool, given["scale"], given["zero_point"])
        new.meta["val"] = pool.meta["val"].new_empty(pool.meta["val"].shape, node.meta["val"].dtype)
    for view in views:
        view.meta["val"] = view.meta["val"].new_empty(view.meta["val"].shape, node.meta["val"].dtype)
    pool.replace_all_uses_with(new)
    graph.erase_node(pool)
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    graph.erase_node(node)
