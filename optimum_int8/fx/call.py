"""A call of a block, as a graph takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers.cache_utils import Cache

from ..cache import Int8Layer
from .arguments import Key, flatten
from .caches import find_cache, own_layers, read_layers

SHORT = 256
"""Tokens up to which a stack of layers is one block: beyond, a call per layer costs nothing, and its weights may stay in the cache from one
group of tokens to the next."""


class Call:
    """Arguments of a call, their guard key and their tensors, and the place in a cache that belongs to the block.

    Args:
        layer: of the block; see `layer_index`.

    Raises:
        NotCapturable: an argument is an object that may hold state.
    """

    __slots__ = ("args", "kwargs", "layer", "key", "tensors")

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], layer: int | None) -> None:
        self.args = args
        self.kwargs = kwargs
        self.layer = layer
        self.key: Key
        self.key, self.tensors = flatten(args, kwargs, layer)

    @property
    def cache(self) -> Cache | None:
        """The user's cache, which results of a graph go to."""
        return find_cache([*self.args, *self.kwargs.values()])

    def with_states(self) -> Call:
        """Itself, with the keys and values that an `Int8Cache` keeps in INT8 as tensors: until then others of their size are in their place."""
        cache = self.cache
        place = self.layer
        if place is None or cache is None:
            return self
        for layers in (own_layers(cache), read_layers(cache)):
            layer = layers[place] if place < len(layers) else None
            if type(layer) is Int8Layer and layer.rows is not None:
                layer.replace_stand_ins(self.tensors)
        return self

    @property
    def is_long(self) -> bool:
        """Whether it has more tokens than `SHORT`."""
        tensors = self.tensors
        return bool(tensors) and tensors[0].dim() == 3 and tensors[0].shape[0] * tensors[0].shape[1] > SHORT
