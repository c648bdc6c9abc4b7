"""Consecutive decoder layers that run at the first one's call, and what they gave until their own calls come.

A model's own code calls layer after layer: between two calls of the native library lies as much Python as some layers take. Where each
layer was seen to take what the one before it gave, and otherwise the same arguments, all of them run by one call. The model's code still
calls each: its block compares the arguments with those that its result was computed for, by identity and by the tensors' versions, and
only then hands the result out and counts the new keys and values. Anything else runs as if nothing had been computed, so that code between
the layers (a hook, an addition to the hidden states, a layer that is skipped) sees and does what it always did.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import is_
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..cache import Int8Layer
from ..kernels import bytes_changed
from .arguments import Key, cache_tensors, rebuild_output
from .caches import CROSS, own_layer, own_layers, read_layers
from .call import Call
from .observed import Hooks
from .sources import Sources
from .sources import Together as SourcesTogether
from .variants import Variant, Variants

_MISSES = 3
"""Times that a block was not called as it had been, after which it is not run ahead any more."""

_SMALL = 1 << 16
"""Bytes of a tensor of inference mode, which has no version, up to which it is compared by value."""


class Member(Protocol):
    """A block of a chain; see `Block`.

    Attributes:
        follower: the block that was called with this one's result.
        misses_ahead: how often it was not.
    """

    module: Any
    variants: Variants
    sources: Sources | None
    hooks: Hooks
    follower: weakref.ref[Any] | None
    misses_ahead: int

    @property
    def layer(self) -> int | None:
        """The module's place in a KV cache."""


Together = Callable[[Sequence[Tensor], Sequence[Int8Layer], Sequence[Int8Layer]], Any]
"""What each layer gives, for tensors of a call of the first, their layers of the cache, and those of an encoder; None where it cannot."""

Make = Callable[[Sequence[Any]], Together]
"""From steps (`Variant.direct`) to a `Together`, which one thread at a time uses."""


class _Last(NamedTuple):
    """A block that ran last of its chain, what it gave, and the guard key of its call."""

    block: weakref.ref[Any]
    result: weakref.ref[Tensor]
    key: Key


class _State(threading.local):
    """Of each thread."""

    ahead: Ahead | None = None
    last: _Last | None = None


_state = _State()


class Chain:
    """Blocks that run at the call of the first.

    Args:
        key: the guard key of their calls.
        epoch: see `Compiler.epoch`.
    """

    def __init__(self, blocks: Sequence[Member], variants: Sequence[Variant], key: Key, epoch: int, make: Make) -> None:
        self.blocks = blocks
        self.key = key
        self.variants = variants
        self._epoch = epoch
        self._make = make
        self._free: list[Together] = []
        own = variants[0].captured
        self._captured = [c for c in {id(v.captured): v.captured for v in variants}.values() if c is not own]
        self._sources = SourcesTogether([block.sources for block in blocks[1:] if block.sources is not None])
        self._hooks_number = -1
        places = [block.layer for block in blocks]
        self.places = [place for place in places if place is not None]
        self._range = slice(self.places[0], self.places[-1] + 1)
        self._reads = len(blocks) if variants[0].direct.fixed else 0  # type: ignore[union-attr]
        self._is_range = places == list(range(self._range.start, self._range.stop))

    def holds(self, epoch: int, tensors: Sequence[Tensor]) -> bool:
        """Whether the blocks are what they were, and their graphs are for tensors of these sizes. The first block knows of itself."""
        if epoch != self._epoch or not self._sources.unchanged():
            return False
        number = RemovableHandle.next_id
        if number != self._hooks_number:
            if any(block.hooks.act(False) for block in self.blocks):
                return False
            self._hooks_number = number
        return all(captured.holds(tensors) for captured in self._captured)

    def layers(self, all_layers: list[Any]) -> list[Any]:
        """Those of a cache that belong to the blocks."""
        if self._is_range:
            return all_layers[self._range]
        return [all_layers[place] for place in self.places if place < len(all_layers)]

    def run(self, call: Call) -> Ahead | None:
        """What the blocks give for a call of the first; None where the cache is of another kind."""
        layers = self.layers(own_layers(call.cache))
        read = self.layers(read_layers(call.cache)) if self._reads else []
        if not all(type(layer) is Int8Layer for layer in (*layers, *read)) or self._reads != len(read):
            return None
        try:
            together = self._free.pop()
        except IndexError:
            together = self._make([variant.direct for variant in self.variants])
        results = together(call.tensors, layers, read)
        self._free.append(together)
        return None if results is None else Ahead(self, call, [layers, read], results)


class Ahead:
    """What a chain computed: results that its blocks have not been asked for."""

    def __init__(
        self, chain: Chain, call: Call, held: Sequence[Sequence[Int8Layer]], results: Sequence[Tensor]
    ) -> None:
        layers, self._read = held
        self.chain = chain
        self.position = 0
        self._others = call.args[1:]
        self._count = len(call.args)
        self._names = tuple(call.kwargs)
        self._named = tuple(call.kwargs.values())
        self._cached = own_layers(call.cache)
        self._layers = layers
        self._tokens = [layer.token for layer in layers]
        self._read_tokens = [layer.token for layer in self._read]
        self._tensors = call.tensors
        self._length = layers[0].length
        self._more = results[0].shape[1]
        self._results = results
        self._watched = Watched([*_tensors(call.args[1:]), *_tensors(call.kwargs.values())])

    @property
    def is_done(self) -> bool:
        """Whether all results were asked for."""
        return self.position == len(self._results)

    @property
    def last_result(self) -> Tensor:
        """The one that was asked for last."""
        return self._results[self.position - 1]

    def next(self) -> Any:
        """The result of the next block, whose call this is now; the cache counts its keys and values."""
        position = self.position
        self._layers[position].length += self._more
        self.position += 1
        variant = self.chain.variants[position]
        result = self._results[position]
        if variant.is_tensor:
            return result
        direct: Any = variant.direct
        others = [self._tensors[x.place] for x in direct.results[1 : len(direct.results) - 2]]
        return rebuild_output(variant.output, [result, *others])

    def is_for(self, block: Member, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether the next result was computed for this call."""
        position = self.position
        chain = self.chain
        layer = self._layers[position]
        if chain.blocks[position] is not block or len(args) != self._count:
            return False
        hidden = args[0]
        if hidden is not self._results[position - 1] or hidden._version or block.module.training:
            return False
        if layer.length != self._length or layer.token is not self._tokens[position]:
            return False
        if self._read and self._read[position].token is not self._read_tokens[position]:
            return False
        if self._cached[chain.places[position]] is not layer or tuple(kwargs) != self._names:
            return False
        if not all(map(is_, kwargs.values(), self._named)):
            return False
        return (self._count == 1 or all(map(is_, args[1:], self._others))) and self._watched.unchanged()


class Watched:
    """Tensors of a call, and whether they were written to since."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        without_version = [t for t in tensors if t.is_inference()]
        self._versions = [(t, t._version) for t in tensors if not t.is_inference()]
        self._changed = bytes_changed([t for t in without_version if t.is_contiguous()]) if without_version else None
        self.can_tell = all(t.is_contiguous() and t.nbytes <= _SMALL for t in without_version)

    def unchanged(self) -> bool:
        """Whether none was, as far as that can be told."""
        for tensor, version in self._versions:
            if tensor._version != version:
                return False
        return self.can_tell and (self._changed is None or not self._changed())


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def take(block: Member, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The result of a block's call, if this thread has computed it; else None, and what else it has computed is forgotten."""
    ahead = _state.ahead
    if ahead is None:
        return None
    if ahead.is_for(block, args, kwargs):
        result = ahead.next()
        if ahead.is_done:
            _end(ahead, block)
        return result
    _state.ahead = None
    previous = ahead.chain.blocks[ahead.position - 1]
    previous.follower = None
    previous.misses_ahead += 1
    return None


def run_on_cache(block: Member, variant: Variant, call: Call, epoch: int, make: Make | None) -> Any:
    """The result of a block's call that appends to an `Int8Cache`, perhaps with those of the blocks that follow; else None."""
    if make is None or getattr(variant.direct, "forms", None) is None:
        return None
    if type(own_layer(call.cache, block.layer)) is not Int8Layer or not _reads_cross_states(variant, call):
        return None
    _learn(block, call)
    ahead = None
    if call.tensors[0].shape[1] == 1:
        chain = _chain(block, variant, call, epoch, make)
        ahead = None if chain is None else chain.run(call)
    if ahead is None:
        if variant.alone is None:
            variant.alone = Chain([block], [variant], call.key, epoch, make)
        ahead = variant.alone.run(call)
    if ahead is None:
        return None
    result = ahead.next()
    if ahead.is_done:
        _end(ahead, block)
    else:
        _state.ahead = ahead
    return result


def _reads_cross_states(variant: Variant, call: Call) -> bool:
    """Whether all keys and values that a step only reads are those of the encoder in the call's cache."""
    step: Any = variant.direct
    if variant.reads is None:
        cross = [i for i, place in cache_tensors(call.key).items() if place == CROSS]
        variant.reads = [place for place, _ in step.fixed] in ([], cross)
    return variant.reads


def _end(ahead: Ahead, block: Member) -> None:
    _state.ahead = None
    key = None if block.follower is not None or block.misses_ahead >= _MISSES else ahead.chain.key
    _state.last = None if key is None else _Last(weakref.ref(block), weakref.ref(ahead.last_result), key)


def _learn(block: Member, call: Call) -> None:
    """Note that the block is called with what another has given."""
    last = _state.last
    if last is None:
        return
    _state.last = None
    previous = last.block()
    if previous is not None and last.result() is call.tensors[0] and last.key == call.key:
        previous.follower = weakref.ref(block)


def _chain(block: Member, variant: Variant, call: Call, epoch: int, make: Make) -> Chain | None:
    """The blocks that run at the call of this one; None for it alone."""
    chain = variant.chain
    if chain is None or chain.blocks[-1].follower is not None or not chain.holds(epoch, call.tensors):
        chain = variant.chain = _longest(block, variant, call, epoch, make)
        if not chain.holds(epoch, call.tensors):
            return None
    return chain if len(chain.blocks) > 1 else None


def _longest(block: Member, variant: Variant, call: Call, epoch: int, make: Make) -> Chain:
    """The block and all that follow it with a graph for such a call."""
    blocks = [block]
    variants = [variant]
    while (follower := blocks[-1].follower) is not None:
        other = follower()
        if other is None or other in blocks or other.sources is None:
            break
        found = other.variants.get(call.key)
        if found is None or not found.knows(call.tensors) or getattr(found.direct, "forms", None) is None:
            break
        one: Any = variant.direct
        if not one.goes_with(found.direct):
            break
        blocks.append(other)
        variants.append(found)
    return Chain(blocks, variants, call.key, epoch, make)
