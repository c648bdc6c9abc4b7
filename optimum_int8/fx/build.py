"""From a call of a block to a compiled graph that was checked against the module's own code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .agreement import agree, gives_same_bits
from .arguments import Key, NotCapturable, SliceDiffers, copies
from .call import Call
from .captured import capture
from .compiler import Bound, Compiler
from .own_run import OwnError, run_own
from .silence import logger
from .slices import between, slice_call
from .sources import Sources
from .structure import structure_key
from .trial import try_own
from .variants import Variant


class Builder:
    """Makes the variants of one block.

    A variant is checked on a slice of the call that it is for (`slices.py`), and on all of it where a slice cannot tell. The callers hold
    the compiler's lock and capture behind the gate.

    Args:
        forward: the module's own forward, bound.
        layer: see `layer_index`.
    """

    def __init__(
        self, name: str, module: nn.Module, forward: Callable[..., Any], layer: int | None, compiler: Compiler
    ) -> None:
        self.name = name
        self.module = module
        self.forward = forward
        self.layer = layer
        self.compiler = compiler
        self._structure: tuple[Any, ...] | None = None

    def build(self, key: Key, tensors: list[Tensor], sources: Sources | None) -> tuple[Variant, Sources]:
        """A variant for a call, and what its graphs were built from.

        Args:
            sources: of the block's graphs so far.

        Raises:
            OwnError, Ran: see `run_own`.
            NotCapturable: with the reason.
        """
        watching = sources or Sources(self.module)
        variant = self._build_on_slice(key, tensors, watching)
        if variant is None:
            watching = sources or Sources(self.module)
            whole = copies(tensors)
            with self._watching(key) as calls:
                structure, results = self._run_own(key, whole)
            with torch.no_grad():
                known = self._known(key, whole, structure, results, calls)
                bound = known or self._capture(key, whole, structure, results)
                variant = self.compiler.finish(bound, whole, results, watching, check=known is None)
        return variant, watching

    def _build_on_slice(self, key: Key, tensors: list[Tensor], sources: Sources) -> Variant | None:
        """A variant that was checked on a slice of a call; None where only the whole call can tell."""
        small = slice_call(key, tensors, self.layer)
        if small is None:
            return None
        with self._watching(key) as calls:
            ran = try_own(self.module, self.forward, key, small, self.layer)
        if ran is None:
            return None
        shared = self.shared(key)
        earlier = self.compiler.captured.get(shared)
        if earlier is not None and earlier.holds(tensors) and not earlier.holds(small):
            return None
        try:
            with torch.no_grad():
                known = self._known(key, small, *ran, calls)
                if known is not None and not known.captured.holds(tensors):
                    known = None
                bound = known or self._capture(key, small, *ran, tensors)
                if between(bound.captured.assumed, small, tensors) and not self._same_on_all(bound, key, tensors):
                    raise SliceDiffers("its graph holds for a slice of the call")
                return self.compiler.finish(bound, small, ran[1], sources, check=known is None)
        except SliceDiffers as error:
            logger.debug("%s: on a slice, %s", self.name, error)
        if earlier is None:
            self.compiler.captured.pop(shared, None)
        return None

    def _same_on_all(self, bound: Bound, key: Key, tensors: list[Tensor]) -> bool:
        whole = copies(tensors)
        _, results = self._run_own(key, whole)
        return gives_same_bits(bound.run, whole, results)

    def _run_own(self, key: Key, tensors: list[Tensor]) -> tuple[Any, list[Tensor]]:
        return run_own(self.module, self.forward, key, tensors, self.layer)

    def _try_own(self, key: Key, tensors: list[Tensor]) -> tuple[Any, list[Tensor]]:
        """For tensors that are not the call's: the module does not remember them."""
        ran = try_own(self.module, self.forward, key, tensors, self.layer)
        if ran is None:
            raise OwnError
        return ran

    def shared(self, key: Key) -> tuple[Any, ...]:
        """What siblings that may have one graph have in common."""
        self._structure = self._structure or structure_key(self.module)
        return self._structure, key

    def _watching(self, key: Key) -> contextlib.AbstractContextManager[Any]:
        """Around a run of the own code that a stored graph may be compared with."""
        stored = self.compiler.stored
        if stored is None or self.shared(key) in self.compiler.captured:
            return contextlib.nullcontext()
        return stored.watching(self.module)

    def _known(
        self, key: Key, tensors: list[Tensor], structure: Key, results: list[Tensor], calls: Any
    ) -> Bound | None:
        """A sibling's graph, or one that was stored, if it gives the same on this module's tensors."""
        known = self.compiler.captured.get(self.shared(key))
        if known is None:
            return self._stored(key, tensors, structure, results, calls)
        if known.output != structure or known.image not in (None, tensors[0].shape[2:]):
            return None
        bound = Bound(known, self.module)
        return bound if known.holds(tensors) and gives_same_bits(bound.run, tensors, results) else None

    def _stored(
        self, key: Key, tensors: list[Tensor], structure: Key, results: list[Tensor], calls: Any
    ) -> Bound | None:
        """The graph that the model's checkpoint holds for such a call, which siblings then have too."""
        shared = self.shared(key)
        candidate = None if self.compiler.stored is None else self.compiler.stored.find(self.module, shared)
        if candidate is None:
            return None
        bound = candidate.bind(key, structure, tensors, results, lambda others: self._try_own(key, others), calls)
        if bound is not None:
            self.compiler.captured[shared] = bound.captured
        return bound

    def _capture(
        self,
        key: Key,
        tensors: list[Tensor],
        structure: Key,
        results: list[Tensor],
        whole: list[Tensor] | None = None,
    ) -> Bound:
        """A graph that gives the same on these tensors, and holds for the sizes of `whole` too."""
        try:
            captured = capture(self.module, self.forward, key, tensors)
        except NotCapturable:
            self.compiler.refused[self.shared(key)] = None
            raise
        if captured.output != structure or not captured.holds(tensors) or not captured.holds(whole or tensors):
            raise SliceDiffers("the captured graph does not hold for this call's sizes")
        bound = Bound(captured, self.module)
        if not agree(bound.run(tensors), results):
            raise NotCapturable("the captured graph disagrees with the module at a second shape")
        self.compiler.captured[self.shared(key)] = captured
        return bound

    def same_bits(self, variant: Variant, call: Call) -> bool:
        """Whether the captured graph of a variant gives what the module does, on a slice of the call or on all of it.

        Raises:
            OwnError, Ran, NotCapturable: see `run_own`.
        """
        captured = variant.captured
        bound = Bound(captured, self.module)
        small = slice_call(call.key, call.tensors, self.layer)
        if small is not None and captured.holds(small) and not between(captured.assumed, small, call.tensors):
            ran = try_own(self.module, self.forward, call.key, small, self.layer)
            if ran is not None:
                return gives_same_bits(bound.run, small, ran[1])
        whole = copies(call.tensors)
        return gives_same_bits(bound.run, whole, self._run_own(call.key, whole)[1])
