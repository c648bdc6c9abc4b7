"""What was compiled for a block: one variant for each guard key."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .arguments import Key, rebuild_output
from .caches import store
from .call import Call
from .captured import Captured
from .guards import single_axes

VARIANTS = 16
_MOST_SIZES = 4096
_RENEWALS = 3
"""Times that a block is compiled again because its tensors changed, before it waits for them to stop changing; each time longer, up to a minute."""

Run = Callable[[list[Tensor]], Sequence[Any]]


@dataclass
class Variant:
    """One compiled graph of a block, the captured graph it was compiled from, and how its results are assembled.

    Attributes:
        direct: the graph's results without running the graph, where the compiler knows a way.
        reads: see `chain`.
        chain, alone: the block and those that run with it, and the block by itself, where it appends to an `Int8Cache`.
    """

    graph: fx.GraphModule
    captured: Captured
    direct: Run | None = None

    def __post_init__(self) -> None:
        self.output = self.captured.output
        self.image = self.captured.image
        structure, self.places = self.output
        self.is_tensor = structure[0] == "tensor"
        self.singles = {(False, False): True}
        """By `single_axes` of a call, whether the graph was seen to agree with the module there."""
        self.chain: Any = None
        self.alone: Any = None
        self.reads: bool | None = None
        self.served: set[tuple[torch.Size, ...]] = set()
        """Sizes of calls that the graph is one for, so that they are not asked about again."""

    def note_served(self, tensors: Sequence[Tensor]) -> None:
        """The graph is one for tensors of these sizes."""
        if len(self.served) >= _MOST_SIZES:
            self.served.clear()
        self.served.add(tuple([t.shape for t in tensors]))

    def serves(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the graph is one for tensors of these sizes; of single axes that are new it does not know."""
        if self.image is not None and self.image != tensors[0].shape[2:]:
            return False
        return self.captured.holds(tensors)

    def knows(self, tensors: Sequence[Tensor]) -> bool | None:
        """Whether the graph agrees with the module for such a batch and length; None where it was not asked yet."""
        return self.singles.get(single_axes(tensors))

    def __call__(self, call: Call) -> Any:
        """Run a call; what the graph computed for its cache goes there."""
        tensors = call.tensors
        results = self.graph.forward(*tensors) if self.direct is None else self.direct(tensors)
        if self.places:
            cache = call.cache
            assert cache is not None and call.layer is not None
            store(cache, self.places, results[-2 * len(self.places) :], call.layer)
        return results[0] if self.is_tensor else rebuild_output(self.output, results)


class Variants(dict[Key, "Variant | None"]):
    """The variants of a block by guard key; None where the module's own code runs."""

    _had_graph = False

    def without_graphs(self) -> Variants:
        """Those without a graph; the others are captured again when they are called for."""
        kept = Variants({key: None for key, variant in self.items() if variant is None})
        kept._had_graph = self.has_graph
        return kept

    @property
    def is_full(self) -> bool:
        """Whether calls with other keys run the module's own code."""
        return len(self) >= VARIANTS

    @property
    def has_graph(self) -> bool:
        """Whether one of them is a graph, or was one."""
        return self._had_graph or any(self.values())


class Renewals:
    """How often a block was compiled again: one whose tensors keep changing waits, each time longer."""

    def __init__(self) -> None:
        self._count = 0
        self._last = 0.0
        self._rests_until = 0.0

    def add(self) -> None:
        """It is compiled again now."""
        now = time.monotonic()
        self._count = self._count + 1 if now - self._last < 60.0 else 1
        self._last = now
        if self._count > _RENEWALS:
            self._rests_until = now + min(60.0, 0.5 * 2.0 ** (self._count - _RENEWALS))

    @property
    def rests(self) -> bool:
        """Whether the block waits."""
        return time.monotonic() < self._rests_until
