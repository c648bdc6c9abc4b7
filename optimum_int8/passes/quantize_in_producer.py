"""Move a quantization into the operator that makes the value, so that values stay INT8 from one kernel to the next."""

from __future__ import annotations

from torch import fx

from ..fx.rewrite import add_item, named, only_user, replace_results
from ..fx.roles import add_quantizing_form, called, is_elementwise, is_quantization, quantizing_form
from ..operators import PER_ROW, PER_TENSOR, Operator, Quantizing


def quantize_in_producer(graph_module: fx.GraphModule) -> int:
    """Needs: fused activations, residuals, norms and attention. Leaves: producers that write uint8. Preserves: bits.

    An operator with such a form (`operators.Quantizing`) writes uint8 instead of float32 if only the quantization reads it. One with a form
    that keeps float32 writes both, as the residual path of a norm or a convolution needs it.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        form = _form(node) if is_quantization(node, PER_TENSOR, PER_ROW) else None
        if form is not None:
            _move(graph_module, node, form)
            count += 1
    return count


def _form(node: fx.Node) -> Operator | None:
    """What computes a value and its quantization `node`; sums are those of `quantize_in_sum`, which knows where they broadcast."""
    source = named(node)["x"]
    operator = called(node)
    if operator is None or is_elementwise(source):
        return None
    alone = quantizing_form(source, operator.per) if only_user(source) is node else None
    return alone or quantizing_form(source, operator.per, keeps_float=True)


def _move(graph_module: fx.GraphModule, node: fx.Node, form: Operator) -> None:
    source, *qparams = named(node).values()
    keeps_float = isinstance(form.form, Quantizing) and form.form.keeps_float
    quantized = node.meta["val"]
    values = (quantized,) if not isinstance(quantized, tuple) else quantized
    values = (source.meta["val"], *values) if keeps_float else values
    with graph_module.graph.inserting_before(source):
        new = add_quantizing_form(graph_module, form, source, *qparams)
        new.meta["val"] = values[0] if len(values) == 1 else values  # sizes as they are named elsewhere
        results = [new] if len(values) == 1 else [add_item(graph_module, new, i) for i in range(len(values))]
    if keeps_float:
        replace_results(graph_module, node, results[1:])
        source.replace_all_uses_with(results[0])
    else:
        replace_results(graph_module, node, results)
    graph_module.graph.erase_node(source)
