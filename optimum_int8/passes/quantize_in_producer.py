"""Move a quantization into the operator that makes the value, so that values stay INT8 from one kernel to the next."""

from __future__ import annotations

import operator

from torch import fx

from ..fx.rewrite import add_call, add_item, is_call, named, only_user, ours


def quantize_in_producer(graph_module: fx.GraphModule) -> int:
    """Needs: fused activations, norms and attention. Leaves: producers that write uint8. Preserves: bits.

    A linear and an attention core write uint8 instead of float32 if only the quantization reads them; a norm writes both, as the residual
    path needs float32.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        if is_call(node, ours.quantize.default):
            count += _static(graph_module, node)
        elif is_call(node, ours.quantize_rows.default):
            count += _dynamic(graph_module, node)
    return count


def _static(graph_module: fx.GraphModule, node: fx.Node) -> int:
    given = named(node)
    source = given["x"]
    scale = given["scale"]
    zero_point = given["zero_point"]
    output = {"output_scale": scale, "output_zero_point": zero_point}
    alone = isinstance(source, fx.Node) and only_user(source) is node
    with graph_module.graph.inserting_before(node):
        if is_call(source, ours.linear.default) and alone:
            new = add_call(graph_module, ours.linear_quantized.default, **named(source), **output)
        elif is_call(source, ours.attention_rows.default) and alone:
            new = add_call(
                graph_module, ours.attention_rows_quantized.default, *named(source).values(), scale, zero_point
            )
        elif is_call(source, ours.float_attention_rows.default) and alone:
            new = add_call(
                graph_module, ours.float_attention_rows_quantized.default, *named(source).values(), scale, zero_point
            )
        elif is_call(source, ours.norm.default):
            return _norm(graph_module, node, ours.norm_quantized.default, (scale, zero_point))
        else:
            return 0
    node.replace_all_uses_with(new)
    graph_module.graph.eliminate_dead_code()
    return 1


def _dynamic(graph_module: fx.GraphModule, node: fx.Node) -> int:
    if not is_call(node.args[0], ours.norm.default):
        return 0
    return _norm(graph_module, node, ours.norm_quantized_rows.default, ())


def _norm(graph_module: fx.GraphModule, node: fx.Node, target: object, qparams: tuple[object, ...]) -> int:
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    with graph_module.graph.inserting_before(source):
        new = add_call(graph_module, target, *named(source).values(), *qparams)
        normalised = add_item(graph_module, new, 0)
        items = [add_item(graph_module, new, i + 1) for i in range(len(new.meta["val"]) - 1)]
    if len(items) == 1:
        node.replace_all_uses_with(items[0])
    else:
        for user in list(node.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(items[user.args[1]])  # type: ignore[index]
    source.replace_all_uses_with(normalised)
    graph_module.graph.eliminate_dead_code()
    return 1
