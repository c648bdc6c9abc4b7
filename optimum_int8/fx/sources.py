"""What a block's graphs were built from, so that a call notices when it is no longer what the module holds.

A program reads most tensors in place, so that writing to them in place changes its results as it does the module's. Three things do
not reach it: another tensor or module in the place of the one that was there, another storage in a parameter (`p.data = ...`, as `.half()`
does it), and new values in a tensor that a pass copied (scales as numbers, biases of merged projections, a batch norm folded into a
convolution).

What goes through a method of a module (assignment, registration, `load_state_dict`, `.to()`) is seen at the next call, and so is another
storage in a parameter. Writes that no module is told of, to copied tensors and to `_parameters` and its like, need a look at every table
and at the bytes of what was copied, which costs a small model a twentieth of its call: all of it has left the processor's caches since the
last one. All blocks together do it as often as a five hundredth of the time allows, each at latest `_LATEST` seconds after the write.

It does not see what no tensor says: plain attributes of modules (`layer.eps = 1e-3`) and writes through `.data` or NumPy into a packed
weight, which is private to its module. Assign the module again after such a change.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from weakref import WeakSet

from torch import Tensor, fx, nn

from ..kernels import bytes_changed
from ..nn.changes import Changes
from .gate import GATE

_SMALL = 1 << 16
"""Bytes up to which a copied tensor is compared; of larger ones the version counter is."""

_SHARE = 500
_LATEST = 0.1
"""How much longer than the looks of all blocks the time to the next one is, and its limit in seconds."""

_LATEST_TOGETHER = 0.5

_ALIVE: WeakSet[Sources] = WeakSet()
"""Those of all blocks, which share that time."""


class Sources:
    """The tensors and modules below `module` as they are now."""

    def __init__(self, module: nn.Module) -> None:
        self._tables: list[dict[str, Any]] = []
        for child in module.modules():
            Changes.watch(child)
            tables: Sequence[Any] = (child._parameters, child._buffers, child._modules)
            self._tables += [table for table in tables if table]
        self._held = [dict(table) for table in self._tables]
        self._parameters = list(module.parameters())
        self._addresses = list(map(Tensor.data_ptr, self._parameters))
        self._buffers = list(module.buffers())
        self._buffer_addresses = list(map(Tensor.data_ptr, self._buffers))
        self._copied: dict[int, Tensor] = {}
        self._has_graph = False
        self._count = Changes.count
        self._due = 0.0
        _ALIVE.add(self)
        self._watch()

    def add_copied(
        self,
        read: Iterable[Tensor],
        uses: Counter[int],
        remaining: Counter[int],
        moved: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Watch the tensors that a compiled graph no longer reads in place.

        Args:
            read, uses: what the graph read before it was compiled, and how often (`tensors_read`, `count_uses`).
            remaining: how often it does now.
            moved: see `MOVED`. Graphs from before still read the old storage, so that these notice.
        """
        if not self._has_graph:
            places = dict(moved)
            self._buffer_addresses = [places.get(address, address) for address in self._buffer_addresses]
        self._has_graph = True
        for tensor in read:
            address = tensor.data_ptr()
            if tensor.numel() and remaining[address] < uses[address]:
                self._copied[address] = tensor.detach()
        self._watch()

    def _watch(self) -> None:
        small = [t for t in self._copied.values() if t.is_contiguous() and t.nbytes <= _SMALL]
        self._changed = bytes_changed(small)
        known = {id(t) for t in small}
        self._large = [t for t in self._copied.values() if id(t) not in known and not t.is_inference()]
        self._versions = [t._version for t in self._large]

    def unchanged(self) -> bool:
        """Whether all of it is still what it was, as far as it is time to look (see above)."""
        if not self._same_storages():
            return False
        now = time.perf_counter()
        if self._count == Changes.count and now < self._due:
            return True
        count = Changes.count
        if not self._same_values():
            return False
        after = time.perf_counter()
        self._count = count
        self._due = after + min(_SHARE * len(_ALIVE) * (after - now), _LATEST)
        return True

    def same(self) -> bool:
        """Whether all of it is still what it was. While another thread exports the module it is not: ask again once that is done."""
        return self._same_storages() and self._same_values()

    def _same_storages(self) -> bool:
        return list(map(Tensor.data_ptr, self._parameters)) == self._addresses

    def _same_values(self) -> bool:
        try:
            if GATE.owner is not None and not self._same_objects():
                return False
            if self._tables != self._held:  # compares what is not one object by value: fake tensors should not be
                return False
        except Exception:  # two tensors of several values were compared, so they are not one
            return False
        return (
            list(map(Tensor.data_ptr, self._buffers)) == self._buffer_addresses
            and not self._changed()
            and [t._version for t in self._large] == self._versions
        )

    def _same_objects(self) -> bool:
        return all(
            now.get(name) is value
            for now, held in zip(self._tables, self._held, strict=True)
            for name, value in held.items()
        )


class Together:
    """Sources of several blocks that run at one call.

    To look at all of them takes a fortieth of a decoder's step. So it is only done after a method of some module has changed one, and else as
    often as `_SHARE` allows, `_LATEST_TOGETHER` after the last look. Another storage in a parameter is seen at the next call here too: the
    old one, which programs read in place, may be freed.
    """

    def __init__(self, sources: Sequence[Sources]) -> None:
        self._sources = list(sources)
        self._parameters = [parameter for one in sources for parameter in one._parameters]
        self._addresses = [address for one in sources for address in one._addresses]
        self._count = -1
        self._due = 0.0

    def unchanged(self) -> bool:
        """Whether all of it is still what it was, as far as it is time to look."""
        if list(map(Tensor.data_ptr, self._parameters)) != self._addresses:
            return False
        now = time.perf_counter()
        if self._count == Changes.count and now < self._due:
            return True
        count = Changes.count
        if not all(one.same() for one in self._sources):
            return False
        after = time.perf_counter()
        self._count = count
        self._due = after + min(_SHARE * (after - now), _LATEST_TOGETHER)
        return True


def count_uses(graph_module: fx.GraphModule, held: Iterable[Tensor] = ()) -> Counter[int]:
    """By address of a tensor, how often operators of a graph read it, and its modules, which read the tensors `held`."""
    uses: Counter[int] = Counter()
    for node, tensor in _attributes(graph_module):
        uses[tensor.data_ptr()] += _uses(node)
    uses.update(tensor.data_ptr() for tensor in held)
    return uses


def _count(arguments: Any, node: fx.Node) -> int:
    found: list[fx.Node] = []
    fx.map_arg(arguments, lambda n: found.append(n) if n is node else None)
    return len(found)


def uses_by_name(graph: fx.Graph) -> dict[str, int]:
    """How often operators of a graph read each of its tensors."""
    return {str(node.target): _uses(node) for node in graph.find_nodes(op="get_attr")}


def _uses(node: fx.Node) -> int:
    return sum(_count(user.args, node) + _count(user.kwargs, node) for user in node.users)


def tensors_read(graph_module: fx.GraphModule) -> list[Tensor]:
    """The tensors of its module that a graph reads."""
    return [tensor for _, tensor in _attributes(graph_module)]


def _attributes(graph_module: fx.GraphModule) -> Iterator[tuple[fx.Node, Tensor]]:
    for node in graph_module.graph.find_nodes(op="get_attr"):
        value: Any = graph_module
        for name in str(node.target).split("."):
            value = getattr(value, name)
        if isinstance(value, Tensor):
            yield node, value


def written_state(module: nn.Module) -> list[Any]:
    """What a forward that remembers changes: versions of tensors, and attributes that are tensors."""
    found: list[Any] = []
    for inner in module.modules():
        for table in (inner._parameters, inner._buffers):
            found += [(id(x), x._version) for x in table.values() if x is not None and not x.is_inference()]
        for name, value in vars(inner).items():
            if isinstance(value, Tensor):
                found.append((name, id(value)))
    return found
