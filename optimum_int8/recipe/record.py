"""What the blocks of a recipe have traced: ops in order, ranges, and what flows into what."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from .. import numerics
from ..calibration import with_masks
from ..errors import CalibrationError
from ..sites import recipe_traits
from ..sites.functional.attribution import READ_OTHERWISE, Found, ModelSites, Site
from ..sites.functional.call_place import IN_PLACE, OPS, Running, arguments_of, running
from ..sites.rows import merge_heads
from .watch import Watch


@dataclass
class Seen:
    """What was seen of one op."""

    id: int
    site: Site
    inputs: list[Watch]
    output: Watch
    weight_scales: list[list[float]]
    inputs_flow: list[str]

    @property
    def output_flow(self) -> str:
        """Name of the op's result."""
        return f"{self.site.op}{self.id}.output0"


@dataclass
class Recording:
    """Everything that the blocks of one recipe have seen."""

    symmetric: Callable[[str, str, int], bool]  # by op, qualified name and place among the inputs
    observes: bool = True
    seen: dict[str, Seen] = field(default_factory=dict)
    model: weakref.ref[nn.Module] | None = None
    sites: ModelSites | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    _producers: dict[int, tuple[weakref.ref[Tensor], str]] = field(default_factory=dict)
    _call: threading.local = field(default_factory=threading.local)

    def trace(
        self, func: Any, args: Any, kwargs: Any, frame: FrameType, stop: FrameType | None, innermost: bool = True
    ) -> Any:
        """See `sites.functional.trace_ops.OpTracer`. Raises CalibrationError for a second model, and for values that are not finite.

        Args:
            innermost: False where a block of another recipe is nested inside; a second model belongs to that one.
        """
        now = running(frame, stop)
        if now is None or not (innermost or self._knows(now.modules[0])):
            return None
        with self.lock:
            sites = self._sites_of(now.modules[0])
            site = sites.find(OPS[func], func, args, kwargs, now) if func in OPS else []
            read = sites.note_reads(args, site)
            for seen in self.seen.values() if read else ():
                if seen.site.parameter is not None and id(seen.site.parameter) in read:
                    seen.site.why_not = READ_OTHERWISE
            if not site:
                return None
            masks = self._masks(now)
            if func in IN_PLACE:  # the values are gone when it has run
                site = [(s, [x.clone() for x in operands]) for s, operands in site]
        return lambda result: self._finish(site, masks, result)

    def _knows(self, root: nn.Module) -> bool:
        known = None if self.model is None else self.model()
        return known is None or known is root

    def _sites_of(self, root: nn.Module) -> ModelSites:
        known = None if self.model is None else self.model()
        if known is not root:
            if known is not None and self.seen:
                raise CalibrationError(
                    f"this QuantConf has seen a {type(known).__name__} and now another model, a {type(root).__name__}; expected calls of "
                    "one model: use a QuantConf for each, and call the whole model"
                )
            self.model = weakref.ref(root)
            self.sites = ModelSites(root)
        assert self.sites is not None
        return self.sites

    def _enter(self, site: Site, operands: list[Tensor]) -> Seen:
        entry = self.seen.get(site.name)
        if entry is None:
            number = len(self.seen)
            histogram = site.quantized
            floats = [x for x in operands if x.is_floating_point()]
            flows = [self._flow(x) or f"{site.op}{number}.input{i}" for i, x in enumerate(operands)]
            entry = Seen(
                number,
                site,
                [Watch(self.symmetric(site.op, site.name, i), histogram) for i in range(len(floats))],
                Watch(self.symmetric(site.op, site.name, 0), False),
                _weight_scales(site),
                flows,
            )
            self.seen[site.name] = entry
        return entry

    def _flow(self, x: Tensor) -> str | None:
        reference, name = self._producers.get(id(x), (None, ""))
        return name if reference is not None and reference() is x else None

    def _observe(self, watches: list[Watch], operands: list[Tensor], op: str, masks: list[Tensor]) -> None:
        if not self.observes:
            return
        heads_first = recipe_traits(op).heads_first
        for watch, x in zip(watches, [x for x in operands if x.is_floating_point()], strict=True):
            rows = merge_heads(x) if heads_first and x.dim() == 4 else x
            mask = next((m for m in masks if m.shape == rows.shape[:-1]), None)
            watch.observe(rows, mask)

    def _finish(self, found: Found, masks: list[Tensor], result: Any) -> None:
        """An op counts when it has run: one that raised has no place in a recipe."""
        with self.lock:
            entries = [self._enter(site, operands) for site, operands in found]
            for entry, (site, operands) in zip(entries, found, strict=True):
                self._observe(entry.inputs, operands, site.op, masks)
            if not isinstance(result, Tensor):
                return
            self._producers[id(result)] = weakref.ref(result), entries[0].output_flow
            if self.observes and result.is_floating_point() and bool(torch.isfinite(result).all()):
                for entry in entries:
                    entry.output.observe(result)

    def _masks(self, now: Running) -> list[Tensor]:
        """Which tokens of the model's call are not padding, as `quantize` would take them from its batch."""
        last = getattr(self._call, "frame", None)
        if last is not now.frame:
            self._call.frame = now.frame
            self._call.masks = []
            given = arguments_of(now.frame)
            if given is not None:
                self._call.masks = _masks_of_call(now.modules[0], *given)
        return self._call.masks

    def leave(self) -> None:
        """Let go of the frames and tensors of this thread."""
        vars(self._call).clear()
        with self.lock:
            self._producers.clear()


def _masks_of_call(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    try:
        batch = inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return []
    batch = {**batch, **batch.pop("kwargs", {})} if isinstance(batch.get("kwargs"), dict) else batch
    changed, masks = with_masks(model, batch)
    return masks if changed is batch else []


def _weight_scales(site: Site) -> list[list[float]]:
    if (
        site.weight is None or not recipe_traits(site.op).lists_weight_scales
    ):  # a table's scales are as many as its rows
        return []
    rows = site.weight.detach().flatten(1)
    return [numerics.quantize_weight(rows)[1].tolist()] if bool(torch.isfinite(rows).all()) else []
