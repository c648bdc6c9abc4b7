"""Average pooling that is no site, as an operator that takes its place between convolutions."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..fx.rewrite import add_call, aten, is_call, named, ours, shape_of
from ..fx.roles import has_role
from ..numerics import Window, pair, pool_window
from ..operators import CONVOLUTION, POOLING
from .channels_last import ACTIVATIONS

_WINDOWS = {aten.avg_pool2d.default: 2, aten.avg_pool1d.default: 1}
_WHOLE = {aten.adaptive_avg_pool2d.default: 2, aten.adaptive_avg_pool1d.default: 1}
_THROUGH = (
    *ACTIVATIONS,
    aten.add.Tensor,
    aten.add_.Tensor,
    aten.mul.Tensor,
    aten.mul_.Tensor,
    aten.max_pool2d.default,
    aten.permute.default,
    aten.squeeze.dim,
)


def average_pools(graph_module: fx.GraphModule) -> int:
    """Needs: nothing. Leaves: average pooling and means over all positions, of what a convolution made, as `avg_pool` on float32 between
    transposes. Preserves: bits of a pooling; of a whole image up to the order of its sum.

    The input of a pooling function has no quantization parameters, so it stays float32; modules of average pooling are sites and quantize it.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        found = _pooling(node)
        if found is None or not _from_convolution(node.args[0]):
            continue
        spatial, window, padding_counts, keeps = found
        _replace(graph_module, node, spatial, window, padding_counts, keeps)
        count += 1
    return count


def _pooling(node: fx.Node) -> tuple[int, Window | None, bool, bool] | None:
    """Axes, window (None: all), whether padding counts, and whether the axes stay."""
    if not is_call(node, *_WINDOWS, *_WHOLE, aten.mean.dim):
        return None
    given = named(node)
    rank = len(shape_of(node.args[0]))  # type: ignore[arg-type]
    if is_call(node, aten.mean.dim):
        axes = sorted(int(axis) % rank for axis in given["dim"] or ())
        spatial = len(axes)
        whole = rank in (3, 4) and axes == list(range(2, rank)) and given["dtype"] is None
        return (spatial, None, False, bool(given["keepdim"])) if whole else None
    spatial = {**_WINDOWS, **_WHOLE}[node.target]  # type: ignore[index]
    if rank != spatial + 2:
        return None
    if is_call(node, *_WHOLE):
        return (spatial, None, False, True) if all(size == 1 for size in pair(given["output_size"])) else None
    if given.get("divisor_override") is not None:
        return None
    kernel = given["kernel_size"]
    stride = given["stride"] or kernel
    window = pool_window(kernel, stride, given["padding"], ceil_mode=bool(given["ceil_mode"]), axes=spatial)
    return None if window is None else (spatial, window, bool(given["count_include_pad"]), True)


def _from_convolution(node: Any) -> bool:
    """Whether a value is the result of a convolution, up to operators that change it in place."""
    while isinstance(node, fx.Node):
        if has_role(node, CONVOLUTION, POOLING):
            return True
        if not is_call(node, *_THROUGH):
            return False
        inputs = [a for a in node.all_input_nodes if a.op == "call_function"]
        if len(inputs) > 1:
            return any(_from_convolution(a) for a in inputs)
        node = inputs[0] if inputs else None
    return False


def _replace(
    graph_module: fx.GraphModule, node: fx.Node, spatial: int, window: Window | None, padding_counts: bool, keeps: bool
) -> None:
    graph = graph_module.graph
    x = node.args[0]

    def view(target: Any, source: fx.Node, argument: Any, shape: list[Any]) -> fx.Node:
        new = graph.call_function(target, (source, argument))
        new.meta["val"] = source.meta["val"].new_empty(shape, source.meta["val"].dtype)
        return new

    with graph.inserting_before(node):
        if spatial == 1:
            batch, channels, length = shape_of(x)  # type: ignore[arg-type]
            x = view(aten.unsqueeze.default, x, 2, [batch, channels, 1, length])  # type: ignore[arg-type]
        shape = shape_of(x)  # type: ignore[arg-type]
        rows = view(aten.permute.default, x, [0, 2, 3, 1], [shape[i] for i in (0, 2, 3, 1)])  # type: ignore[arg-type]
        moved = None if window is None else list(window)
        pooled = add_call(graph_module, ours.avg_pool.default, rows, window=moved, padding_counts=padding_counts)
        size = shape_of(node)[2:] if keeps else (1,) * spatial  # sizes as they are named elsewhere
        size = (1, *size) if spatial == 1 else size
        pooled.meta["val"] = rows.meta["val"].new_empty([shape[0], *size, shape[1]], node.meta["val"].dtype)
        out = view(aten.permute.default, pooled, [0, 3, 1, 2], [shape[0], shape[1], *size])
        if spatial == 1:
            out = view(aten.squeeze.dim, out, 2, [shape[0], shape[1], size[1]])
        if not keeps:
            out = view(aten.flatten.using_ints, out, 1, [shape[0], shape[1]])
    node.replace_all_uses_with(out)
    graph.erase_node(node)
