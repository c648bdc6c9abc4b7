"""Move a quantization into the convolution that makes the value, also from behind a max pooling."""

from __future__ import annotations

from torch import fx

from ..fx.rewrite import add_call, add_item, is_call, named, only_user, ours


def quantize_in_conv(graph_module: fx.GraphModule) -> int:
    """Needs: fused convolutions. Leaves: convolutions that write uint8, and max pooling on uint8. Preserves: bits.

    A convolution writes uint8 instead of float32 if only the quantization reads it, and both where a residual path needs float32.
    Quantization is monotone, so that it may be done before a maximum.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        if is_call(node, ours.quantize.default):
            node, moved = _before_pools(graph_module, node)
            count += moved + _into_conv(graph_module, node)
    return count


def _before_pools(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, int]:
    count = 0
    while is_call(node.args[0], ours.max_pool.default) and only_user(node.args[0]) is node:
        given = named(node)
        pool = given["x"]
        with graph_module.graph.inserting_before(node):
            before = add_call(graph_module, ours.quantize.default, **{**given, "x": named(pool)["x"]})
            after = add_call(graph_module, ours.max_pool.default, before, named(pool)["window"])
            after.meta["val"] = node.meta["val"]  # sizes as they are named elsewhere
        node.replace_all_uses_with(after)
        graph_module.graph.erase_node(node)
        graph_module.graph.erase_node(pool)
        node = before
        count = count + 1
    return node, count


def _into_conv(graph_module: fx.GraphModule, node: fx.Node) -> int:
    given = named(node)
    source = given["x"]
    if not is_call(source, ours.conv.default):
        return 0
    values = {**named(source), "output_scale": given["scale"], "output_zero_point": given["zero_point"]}
    alone = only_user(source) is node
    with graph_module.graph.inserting_before(source):
        if alone:
            quantized = add_call(graph_module, ours.conv_quantized.default, **values)
            quantized.meta["val"] = node.meta["val"]
        else:
            both = add_call(graph_module, ours.conv_both.default, **values)
            both.meta["val"] = source.meta["val"], node.meta["val"]
            floats = add_item(graph_module, both, 0)
            quantized = add_item(graph_module, both, 1)
    node.replace_all_uses_with(quantized)
    graph_module.graph.erase_node(node)
    if not alone:
        source.replace_all_uses_with(floats)
    graph_module.graph.erase_node(source)
    return 1
