"""Attention that a model writes out (two products and a softmax between them) as the float core."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx

from ..fx.rewrite import add_call, aten, both_orders, is_call, named, only_user, ours, shape_of, swaps_heads

_SHAPES = (aten.view.default, aten.reshape.default)
_PRODUCTS = (aten.matmul.default, aten.bmm.default)


class _Scores(NamedTuple):
    """`softcap * tanh(query @ key.T * scaling / softcap)` plus masks, of heads `[batch, heads, length, head]`.

    Attributes:
        biases: to be added, `[batch * heads, 1 or queries, keys]`.
    """

    query: fx.Node
    key: fx.Node
    scaling: float = 1.0
    softcap: float = 0.0
    masks: tuple[fx.Node, ...] = ()
    biases: tuple[fx.Node, ...] = ()

    @property
    def is_plain(self) -> bool:
        return not (self.softcap or self.masks or self.biases)


def fuse_written_attention(graph_module: fx.GraphModule) -> int:
    """Needs: no casts to a value's own dtype. Leaves: `float_attention` for `softmax(query @ key.T * scaling + masks) @ value` in float32, with a
    soft cap of the scores where there is one, and keys and values that query heads share as they were before they were repeated.
    Weights that the graph returns are computed besides. Preserves: values up to rounding and the exponential's polynomial (numerics)."""
    count = 0
    for node in list(graph_module.graph.nodes):
        if is_call(node, aten.softmax.int, aten._softmax.default):
            count += _rewrite(graph_module, node)
    return count


def _rewrite(graph_module: fx.GraphModule, softmax: fx.Node) -> bool:
    weighed = _weighed(softmax)
    scores = _scores(softmax.args[0])
    if weighed is None or scores is None or softmax.args[1] not in (-1, 3):
        return False
    value, last = weighed
    floats = (softmax, softmax.args[0], scores.query, scores.key, value, *scores.masks, *scores.biases)
    if any(node.meta["val"].dtype != torch.float32 for node in floats):  # type: ignore[union-attr]
        return False
    if shape_of(scores.key) != shape_of(value) or shape_of(scores.query)[1] % shape_of(value)[1]:
        return False
    with graph_module.graph.inserting_before(softmax):
        mask = _mask(graph_module, scores)
        core = add_call(
            graph_module,
            ours.float_attention.default,
            *(scores.query, scores.key, value),
            bfloat16=False,
            mask=mask,
            scaling=scores.scaling,
            causal=False,
            softcap=scores.softcap,
        )
    if len(softmax.users) > 1:
        _copy_keys(graph_module, softmax, scores.key)
    core.meta["val"] = last.meta["val"]
    last.replace_all_uses_with(core)
    graph_module.graph.erase_node(last)
    return True


def _copy_keys(graph_module: fx.GraphModule, softmax: fx.Node, key: fx.Node) -> None:
    """Let the weights that the graph returns be computed from a copy: their rounding then does not depend on how keys lie in memory."""
    chain: list[fx.Node] = []
    new = [softmax]
    while new:
        node = new.pop()
        chain.append(node)
        new += [source for source in node.all_input_nodes if source is not key and source not in chain]
    readers = [node for node in chain if key in node.all_input_nodes]
    first = min(readers, key=list(graph_module.graph.nodes).index)
    with graph_module.graph.inserting_before(first):
        copy = graph_module.graph.call_function(aten.clone.default, (key,), {"memory_format": torch.contiguous_format})
    copy.meta["val"] = key.meta["val"]
    for reader in readers:
        reader.replace_input_with(key, copy)


def _weighed(softmax: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Values as heads, and the node that has their weighed sums with heads and lengths exchanged."""
    readers = [user for user in softmax.users if user.op != "output"]
    weights = readers[0] if len(readers) == 1 else None
    factor = softmax
    if is_call(weights, *_SHAPES) and len(shape_of(weights)) == 3:
        factor = weights
        weights = only_user(weights)
    if not is_call(weights, *_PRODUCTS) or weights.args[0] is not factor:
        return None
    value = _heads(weights.args[1])
    last = only_user(weights)
    if len(shape_of(weights)) == 3 and is_call(last, *_SHAPES) and len(shape_of(last)) == 4:
        last = only_user(last)
    if value is None or last is None or len(shape_of(softmax)) != 4:
        return None
    is_permuted = is_call(last, aten.permute.default) and list(named(last)["dims"]) == [0, 2, 1, 3]
    return (value, last) if swaps_heads(last) or is_permuted else None


def _scores(node: Any) -> _Scores | None:
    """What scores are computed from, None where `node` is something else."""
    for inner, mask in both_orders(node, aten.add.Tensor):
        found = _scores(inner) if node.kwargs.get("alpha", 1) == 1 else None
        if found is not None:
            return found._replace(masks=(*found.masks, mask)) if len(shape_of(mask)) == 4 else None
    if is_call(node, aten.mul.Tensor, aten.div.Tensor) and isinstance(node.args[1], (int, float)):
        return _scaled(node)
    if is_call(node, *_SHAPES) and is_call(node.args[0], aten.baddbmm.default):
        return _with_bias(named(node.args[0])) if len(shape_of(node)) == 4 else None
    if not is_call(node, aten.matmul.default) or len(shape_of(node)) != 4:
        return None
    query: Any = node.args[0]
    key = _heads(_turned(node.args[1]))
    return None if key is None or len(shape_of(query)) != 4 else _Scores(query, key)


def _scaled(node: fx.Node) -> _Scores | None:
    inner: Any = node.args[0]
    number = float(node.args[1])  # type: ignore[arg-type]
    is_product = is_call(node, aten.mul.Tensor)
    if is_call(inner, aten.tanh.default) and is_product:
        share: Any = inner.args[0]
        if is_call(share, aten.div.Tensor) and share.args[1] == number and number > 0:
            found = _scores(share.args[0])
            return found._replace(softcap=number) if found is not None and found.is_plain else None
        return None
    found = _scores(inner)
    if found is None or not found.is_plain or not number:
        return None
    return found._replace(scaling=found.scaling * number if is_product else found.scaling / number)


def _with_bias(given: dict[str, Any]) -> _Scores | None:
    """Scores that are added to a bias of each head (ALiBi)."""
    query = _heads(given["batch1"])
    key = _heads(_turned(given["batch2"]))
    if query is None or key is None or given["beta"] != 1 or len(shape_of(given["self"])) != 3:
        return None
    return _Scores(query, key, float(given["alpha"]), biases=(given["self"],))


def _turned(node: Any) -> Any:
    """The value whose last two axes `node` exchanges."""
    if is_call(node, aten.transpose.int):
        rank = len(shape_of(node))
        axes = {int(axis) % rank for axis in node.args[1:3]}  # type: ignore[arg-type]
        return node.args[0] if axes == {rank - 2, rank - 1} else None
    is_permuted = is_call(node, aten.permute.default) and list(named(node)["dims"]) == [0, 1, 3, 2]
    return node.args[0] if is_permuted else None


def _heads(node: Any) -> fx.Node | None:
    """`[batch, heads, length, head]`, of which `node` may be a view without batch, or hold each head several times in a row."""
    if not isinstance(node, fx.Node):
        return None
    if is_call(node, *_SHAPES) and len(shape_of(node)) == 3:
        flat = named(node)["self"]
        is_view = len(shape_of(flat)) == 4 and shape_of(flat)[2:] == shape_of(node)[1:]
        return _heads(flat) if is_view else None
    if len(shape_of(node)) != 4:
        return None
    expanded: Any = node.args[0] if is_call(node, *_SHAPES) else None
    one: Any = expanded.args[0] if is_call(expanded, aten.expand.default) else None
    if is_call(one, aten.unsqueeze.default) and one.args[1] == 2 and len(shape_of(one)) == 5:
        batch, heads, _, length, head = shape_of(expanded)
        source: Any = one.args[0]
        if shape_of(source) == (batch, heads, length, head) and shape_of(node)[2:] == (length, head):
            return source
    return node


def _mask(graph_module: fx.GraphModule, scores: _Scores) -> fx.Node | None:
    """The sum of what is added to scores."""
    graph = graph_module.graph
    terms = list(scores.masks)
    heads = shape_of(scores.query)[1]
    for bias in scores.biases:
        split = graph.call_function(aten.unflatten.int, (bias, 0, [-1, heads]))
        shape = (shape_of(scores.query)[0], heads, *shape_of(bias)[1:])
        split.meta["val"] = bias.meta["val"].new_empty(shape, torch.float32)
        terms.insert(0, split)
    while len(terms) > 1:
        both = terms[:2]
        added = graph.call_function(aten.add.Tensor, tuple(both))
        shape = tuple(b if a == 1 else a for a, b in zip(*map(shape_of, both), strict=True))
        added.meta["val"] = both[0].meta["val"].new_empty(shape, torch.float32)
        terms[:2] = [added]
    return terms[0] if terms else None
