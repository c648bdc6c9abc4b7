"""The KV cache of one decoder layer as tensors of a graph: what it held goes in, what it holds afterwards comes out.

While a layer is exported, a cache of Transformers' own classes stands in for the user's, holding the graph's tensors at the layer's
place, and the model's own code updates it. What it stored are further results of the graph, which the block hands to the user's cache.
A graph therefore has no side effects: running it for a check changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from ..cache import Int8Cache, Int8Layer

CACHE = "cache"
"""First entry of a cache in a guard key; what follows is the arguments of `restore_cache`."""

SELF = "self"
CROSS = "cross"

Places = tuple[str, ...]


class _GraphLayer(DynamicLayer):
    """A layer whose first states are the ones given to it, not a concatenation with nothing."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.is_initialized:
            return super().update(key_states, value_states, *args, **kwargs)
        hold(self, key_states, value_states)
        return key_states, value_states


class _GraphSlidingLayer(_GraphLayer):
    """One whose states are the last ones only: how many tokens there were is not known to a graph."""

    is_sliding = True

    def get_seq_length(self, *args: Any, **kwargs: Any) -> int:
        raise NotImplementedError("the length of a sliding cache layer is no tensor of a graph")

    get_mask_sizes = get_seq_length


def layer_index(module: nn.Module) -> int | None:
    """The place in a cache that everything below `module` uses; None without one, or with several."""
    found = {index for m in module.modules() if type(index := getattr(m, "layer_idx", None)) is int}
    return found.pop() if len(found) == 1 else None


def find_cache(arguments: Iterable[Any]) -> Cache | None:
    """The cache among a call's arguments."""
    return next((x for x in arguments if isinstance(x, Cache)), None)


def own_layer(cache: Cache | None, layer: int | None) -> Any:
    """What holds the keys and values of the tokens themselves (not those of an encoder) at a place of a cache; None without."""
    layers = own_layers(cache)
    return layers[layer] if layer is not None and layer < len(layers) else None


def read_layers(cache: Cache | None) -> list[Any]:
    """What holds the keys and values of an encoder, at all places of a cache."""
    return cache.cross_attention_cache.layers if isinstance(cache, EncoderDecoderCache) else []


def own_layers(cache: Cache | None) -> list[Any]:
    """Those of all places."""
    part = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    return [] if part is None else part.layers


def describe_cache(cache: Cache, layer: int | None, tensors: list[Tensor]) -> tuple[Any, ...] | str:
    """The entry of `layer` for a guard key; appends what the layer holds to `tensors`. A string says why it cannot.

    A graph depends on which states there are already, and whether one token or several are added: a causal mask is for several.
    """
    if layer is None or not tensors or tensors[0].dim() < 2:
        return "an argument is a cache, but which of its layers belongs to the block is not known"
    parts: tuple[Any, ...] = (cache,)
    updated = None
    if type(cache) is EncoderDecoderCache:
        parts = (cache.self_attention_cache, cache.cross_attention_cache)
        updated = bool(cache.is_updated.get(layer))
    for part in parts:
        reason = _unknown(part, layer)
        if reason:
            return reason
    past = _states(parts[0], layer)
    tensors.extend(past)
    cross = _states(parts[1], layer) if updated else ()
    tensors.extend(cross)
    step = bool(past) and bool(tensors[0].shape[1] == 1)
    return (CACHE, updated, _traits(past), _traits(cross), step, _is_sliding(parts[0], layer))


def restore_cache(item: tuple[Any, ...], source: Any, layer: int) -> Cache:
    """The inverse of `describe_cache`: a cache that holds the same tensors at that place and nothing elsewhere."""
    _, updated, past, cross, _, sliding = item
    own = _filled(past, source, layer, _GraphSlidingLayer if sliding else _GraphLayer)
    if updated is None:
        return own
    both = EncoderDecoderCache(DynamicCache(), DynamicCache())  # filled only now: its constructor asks for lengths
    both.self_attention_cache = own
    both.cross_attention_cache = _filled(cross, source, layer)
    both.is_updated = {layer: updated}
    return both


def stored(cache: Cache | None, given: Sequence[Tensor], layer: int | None) -> tuple[Places, list[Tensor]]:
    """What a call added to a cache that held the tensors `given`: places, and keys and values for each."""
    places = []
    tensors = []
    for place, part in _parts(cache).items():
        held = part.layers[layer] if layer is not None and layer < len(part.layers) else None
        if held is not None and held.is_initialized and not any(held.keys is t for t in given):
            places.append(place)
            tensors += [held.keys, held.values]
    return tuple(places), tensors


def store(cache: Cache, places: Places, tensors: Sequence[Tensor], layer: int) -> None:
    """Store the results of a graph in the user's cache, as the model's own code does."""
    parts = _parts(cache)
    for i, place in enumerate(places):
        part = parts[place]
        while len(part.layers) <= layer:
            part.layers.append(part.layer_class_to_replicate())
        keys = tensors[2 * i]
        values = tensors[2 * i + 1]
        if place == CROSS:  # every later step reads them: laid out as attention wants them, once
            keys, values = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (keys, values))
            cache.is_updated[layer] = True
        hold(part.layers[layer], keys, values)


def hold(layer: DynamicLayer, keys: Tensor, values: Tensor) -> None:
    """Make these the states of a layer."""
    if isinstance(layer, DynamicSlidingWindowLayer):
        _slide(layer, keys, values)
        return
    if type(layer) is Int8Layer and layer.rows is not None:
        if layer.takes(keys, values):  # the earlier ones are there
            layer.append(keys[:, :, layer.length :], values[:, :, layer.length :])
            return
        layer.reset()  # states of another batch, where it was cropped to nothing
    if not layer.is_initialized:
        layer.dtype = keys.dtype
        layer.device = keys.device
        layer.is_initialized = True
    layer.keys = keys
    layer.values = values


def _slide(layer: DynamicSlidingWindowLayer, keys: Tensor, values: Tensor) -> None:
    """Make the last of these the states of a layer that keeps no more than a window of them, as its own `update` does."""
    earlier = layer.keys.shape[2] if layer.is_initialized and layer.keys.numel() else 0
    if not layer.is_initialized:
        layer.lazy_initialization(keys, values)
    layer.cumulative_length += keys.shape[2] - earlier
    layer.keys = keys[:, :, -layer.sliding_window + 1 :, :]
    layer.values = values[:, :, -layer.sliding_window + 1 :, :]


def tensor_places(item: tuple[Any, ...]) -> list[str]:
    """The part of the cache that each tensor of `describe_cache` belongs to."""
    _, _, past, cross, *_ = item
    return ([SELF] * 2 if past else []) + ([CROSS] * 2 if cross else [])


def _parts(cache: Cache | None) -> Mapping[str, Cache]:
    if cache is None:
        return {}
    if isinstance(cache, EncoderDecoderCache):
        return {SELF: cache.self_attention_cache, CROSS: cache.cross_attention_cache}
    return {SELF: cache}


def _unknown(cache: Cache, layer: int) -> str | None:
    """Why a cache cannot be handed to a graph: only what grows by concatenation can."""
    if type(cache) not in (DynamicCache, Int8Cache) or cache.offloading:  # a class of its own may store in another way
        return f"an argument is a {type(cache).__name__}, which is not a plain DynamicCache"
    if layer >= len(cache.layers):
        made = cache.layer_class_to_replicate
        return None if made in (DynamicLayer, Int8Layer) else "an argument is a cache without that layer"
    held = cache.layers[layer]
    kind = type(held)
    if kind is DynamicSlidingWindowLayer and getattr(held, "record_past", False):
        return "an argument is a cache with a DynamicSlidingWindowLayer that records what it passes over"
    known = (DynamicLayer, Int8Layer, DynamicSlidingWindowLayer, _GraphLayer, _GraphSlidingLayer)
    return None if kind in known else f"an argument is a cache with a {kind.__name__}"


def _is_sliding(cache: Cache, layer: int) -> bool:
    return layer < len(cache.layers) and bool(cache.layers[layer].is_sliding)


def _states(cache: Cache, layer: int) -> tuple[Tensor, ...]:
    held = cache.layers[layer] if layer < len(cache.layers) else None
    if type(held) is Int8Layer and held.rows is not None:
        return held.stand_ins() if held.length else ()
    if held is None or not held.is_initialized or held.keys.numel() == 0:
        return ()
    return (held.keys, held.values)


def _traits(states: tuple[Tensor, ...]) -> tuple[Any, ...]:
    return tuple((t.dtype, t.dim(), bool(t.shape[2] == 1)) for t in states) if states else ()


def _filled(traits: tuple[Any, ...], source: Any, layer: int, kind: type[_GraphLayer] = _GraphLayer) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = [kind() for _ in range(layer + 1)]
    if traits:
        hold(cache.layers[layer], next(source), next(source))
    return cache
