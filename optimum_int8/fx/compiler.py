"""What the blocks of one model share, and one compiled graph of a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from transformers.cache_utils import Cache

from .agree import ROUNDED, agree, rounding_tolerance
from .arguments import NotCapturable, rebuild_output
from .caches import store
from .capture import Captured
from .guards import single_axes
from .program_call import compute_padding, whole_program
from .sources import Sources, count_uses, tensors_read
from .structure import candidates

if TYPE_CHECKING:
    from .block import Block

_MOST_SIZES = 4096
Compile = Callable[[fx.GraphModule, list[Tensor], bool], fx.GraphModule]
Define = Callable[[fx.GraphModule], int]


@dataclass
class Compiler:
    """What the blocks of one model share: how to compile, what was captured, what failed and why.

    `define` may change what a graph computes, once it was compared with its module; it returns 0 where it left it alone.
    """

    compile: Compile
    define: Define | None = None
    captured: dict[tuple[Any, ...], Captured] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def install_below(self, module: nn.Module, name: str = "") -> None:
        """Make blocks of the largest candidates below `module`."""
        from .block import Block

        for path, child in candidates(module, name):
            if "forward" not in vars(child):
                self.blocks.append(Block(path, child, self))

    def finish(
        self,
        graph: fx.GraphModule,
        tensors: list[Tensor],
        results: list[Tensor],
        captured: Captured,
        check: bool,
        sources: Sources,
    ) -> Variant:
        """Compile a graph that gave `results` for `tensors`; `sources` then watches what it copied.

        Raises:
            NotCapturable: with what failed.
        """
        everything = compute_padding.set(True)
        tolerance = rounding_tolerance(graph)
        try:
            if self.define is not None and self.define(graph):
                results = list(graph(*tensors))
            read, uses = tensors_read(graph), count_uses(graph)
            compiled = self.compile(graph, tensors, check or captured.rounded)
            found = compiled(*tensors)
        except Exception as error:  # the model's own code is always there to run
            raise NotCapturable(f"compiling failed: {type(error).__name__}: {error}") from error
        finally:
            compute_padding.reset(everything)
        captured.rounded = bool(getattr(compiled, "meta", {}).get(ROUNDED))
        if not agree(found, results, tolerance) and not captured.rounded:
            raise NotCapturable("the compiled graph disagrees with the module")
        sources.add_copied(read, uses, compiled)
        variant = Variant(compiled, captured)
        variant.singles[single_axes(tensors)] = True
        return variant

    def __getstate__(self) -> dict[str, Any]:
        kept = {"compile": self.compile, "define": self.define, "failures": self.failures}
        return kept  # graphs hold pointers into this model's tensors

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


@dataclass
class Variant:
    """One compiled graph of a block, the captured graph it was compiled from, and how its results are assembled."""

    graph: fx.GraphModule
    captured: Captured

    def __post_init__(self) -> None:
        self.output, self.image = self.captured.output, self.captured.image
        structure, self.places = self.output
        self.is_tensor = structure[0] == "tensor"
        self.whole = None if self.places else whole_program(self.graph)
        self.singles = {(False, False): True}
        """By `single_axes` of a call, whether the graph was seen to agree with the module there."""
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

    def __call__(self, tensors: list[Tensor], cache: Cache | None = None, layer: int | None = None) -> Any:
        """Run a call; what the graph computed for `cache` goes there."""
        results = self.graph.forward(*tensors) if self.whole is None else (self.whole(tensors),)
        if self.places:
            assert cache is not None and layer is not None
            store(cache, self.places, results[-2 * len(self.places) :], layer)
        return results[0] if self.is_tensor else rebuild_output(self.output, results)
