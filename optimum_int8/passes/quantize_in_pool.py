"""Move a quantization into the average pooling that makes the value, also from behind views of it."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..fx.rewrite import add_call, aten, is_call, named, only_user, ours

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
        if not is_call(node, ours.quantize.default):
            continue
        views: list[fx.Node] = []
        source: Any = named(node)["x"]
        user = node
        while is_call(source, *_VIEWS) and only_user(source) is user:
            views.append(source)
            source, user = source.args[0], source
        if is_call(source, ours.avg_pool.default) and only_user(source) is user:
            _move(graph_module, node, source, views)
            count += 1
    return count


def _move(graph_module: fx.GraphModule, node: fx.Node, pool: fx.Node, views: list[fx.Node]) -> None:
    graph = graph_module.graph
    given = named(node)
    output = {"output_scale": given["scale"], "output_zero_point": given["zero_point"]}
    with graph.inserting_before(pool):
        new = add_call(graph_module, ours.avg_pool_quantized.default, **named(pool), **output)
        new.meta["val"] = pool.meta["val"].new_empty(pool.meta["val"].shape, node.meta["val"].dtype)
    for view in views:
        view.meta["val"] = view.meta["val"].new_empty(view.meta["val"].shape, node.meta["val"].dtype)
    pool.replace_all_uses_with(new)
    graph.erase_node(pool)
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    graph.erase_node(node)
