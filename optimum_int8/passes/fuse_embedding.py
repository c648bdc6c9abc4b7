"""Add an embedding to another value while its rows are read: token, type and position embeddings in one program."""

from __future__ import annotations

from torch import fx

from ..fx.rewrite import add_call, aten, is_call, named, only_user, ours, shape_of


def fuse_embedding(graph_module: fx.GraphModule) -> int:
    """Needs: nothing. Leaves: `embedding_add` for sums with an embedding that nothing else reads, also one that the batch shares. Preserves:
    bits."""
    count = 0
    for node in list(graph_module.graph.nodes):
        if not is_call(node, aten.add.Tensor) or node.kwargs.get("alpha", 1) != 1:
            continue
        pair = _split(node)
        if pair is None:
            continue
        other, embedding = pair
        given = named(embedding)
        with graph_module.graph.inserting_before(node):
            new = add_call(
                graph_module, ours.embedding_add.default, **{**given, "ids": _unexpanded(given["ids"])}, other=other
            )
        node.replace_all_uses_with(new)
        graph_module.graph.erase_node(node)
        count += 1
    return count


def _split(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The value that the sum is as large as, and the embedding added to it."""
    for other, embedding in (node.args[:2], node.args[1::-1]):
        if not (is_call(embedding, ours.embedding.default) and isinstance(other, fx.Node)):
            continue
        if only_user(embedding) is node and other is not embedding and _covers(shape_of(other), shape_of(embedding)):
            return other, embedding
    return None


def _covers(shape: tuple[object, ...], smaller: tuple[object, ...]) -> bool:
    """Equal, or `[batch, length, width]` over `[1, length, width]` or `[length, width]`."""
    return len(shape) == 3 and (
        shape == smaller or shape[1:] == smaller or (shape[1:] == smaller[1:] and smaller[0] == 1)
    )


def _unexpanded(ids: fx.Node) -> fx.Node:
    """The ids before they were repeated for each entry of the batch."""
    if not is_call(ids, aten.expand.default):
        return ids
    source = named(ids)["self"]
    return source if len(shape_of(source)) == 2 and shape_of(source)[0] == 1 else ids
