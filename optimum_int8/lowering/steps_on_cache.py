"""Steps of consecutive decoder layers on a cache in INT8, by one call of the native library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache import Int8Layer
from ..kernels import as_rows
from ..kernels.program import KeysOfCall
from ..kernels.sequence import ProgramSequence
from .step import WholeStep


class StepsOnCache:
    """Layers of which each takes what the one before it gives, and otherwise the same tensors; one thread at a time.

    Args:
        steps: of the layers, all with `forms`.
    """

    def __init__(self, steps: Sequence[WholeStep]) -> None:
        self._steps = list(steps)
        self._forms: list[Any] = [step.forms for step in steps]
        programs = [step.call.on_cache for step in steps]
        self._sequence = ProgramSequence([kept.program for kept in programs if kept is not None])
        self._outputs: Any = []
        self._shared: dict[int, Any] = {}  # by tensor of the call, the places of its address
        self._cached: list[list[int]] = []
        self._fixed: list[list[int]] = []
        self._known: list[object] = []
        self._batch = 0
        self._room = 0
        for step, first in zip(steps, self._sequence.first, strict=True):
            self._place(step, first)
        self._inputs = np.array(self._shared.pop(0))
        self._shared = {tensor: np.array(places) for tensor, places in self._shared.items()}
        self._outputs = np.array(self._outputs)

    def _place(self, step: WholeStep, first: int) -> None:
        kept = step.call.on_cache
        assert kept is not None
        past = {earlier.position for earlier in step.past} | {rows.given for rows in kept.fixed}
        for position, tensor in enumerate(step.places):
            if position not in past:
                self._shared.setdefault(tensor, []).append(first + kept.inputs[position])
        self._outputs.append(first + kept.outputs[step.results[0].place])
        for rows, places in ((kept.appended, self._cached), (kept.fixed, self._fixed)):
            values = [value for side in rows for value in (side.codes, side.scales) if value is not None]
            places.append([first + kept.program.external_index(value.value) for value in values])

    def __call__(
        self, tensors: Sequence[Tensor], layers: Sequence[Int8Layer], read: Sequence[Int8Layer]
    ) -> list[Tensor] | None:
        """What each layer gives, float32 `[batch, length, columns]`. Keys and values are in the rows of the cache's layers then, which do
        not count them yet.

        Args:
            tensors: of a call of the first layer; those of its keys and values are not read.
            layers, read: of the cache: those that are appended to, and those that hold the encoder's keys and values, if any.

        Returns None where the layers of the cache are of another kind: nothing was done.
        """
        hidden = as_rows(tensors[0])
        batch, length = hidden.shape[:2]
        first = layers[0]
        if not self._knows(layers, read, batch, length) and not self._prepare(layers, read, batch, length):
            return None
        made = _empty(len(layers), batch, length, self._steps[0].columns)
        addresses = self._sequence.addresses
        held = [hidden]
        for tensor, places in self._shared.items():
            held.append(as_rows(tensors[tensor]))
            addresses[places] = held[-1].data_ptr()
        outputs = np.fromiter(map(Tensor.data_ptr, made), np.uint64, len(made))
        addresses[self._outputs] = outputs
        addresses[self._inputs[0]] = hidden.data_ptr()
        addresses[self._inputs[1:]] = outputs[:-1]
        self._sequence.run(batch, length, self._kinds(tensors, length, first, read))
        return made

    def _kinds(
        self, tensors: Sequence[Tensor], length: int, first: Int8Layer, read: Sequence[Int8Layer]
    ) -> list[KeysOfCall]:
        step = self._steps[0]
        masks = iter(step.mask_places)
        kinds = []
        for kind in step.call.keys:
            mask = tensors[next(masks)] if kind.has_mask else None
            if kind.appended:
                kinds.append(KeysOfCall(mask, first.length + length, first.room))
            else:
                assert read[0].rows is not None
                kinds.append(KeysOfCall(mask, read[0].length, read[0].room, read[0].rows[0].shared))
        return kinds

    def _knows(self, layers: Sequence[Int8Layer], read: Sequence[Int8Layer], batch: int, more: int) -> bool:
        """Whether the rows of the layers are those of the last run, with room for more, and as many in each."""
        length = layers[0].length
        same = batch == self._batch and length + more <= self._room
        same = same and [layer.token for layer in (*layers, *read)] == self._known
        return same and all(layer.length == length for layer in layers)

    def _prepare(self, layers: Sequence[Int8Layer], read: Sequence[Int8Layer], batch: int, more: int) -> bool:
        """Make room; False where the layers are of another kind, or not all alike."""
        first = layers[0]
        for layer, forms in zip(layers, self._forms, strict=True):
            if not layer.prepare(forms, batch, more) or layer.length != first.length or layer.room != first.room:
                return False
        for layer, step in zip(read, self._steps, strict=False):
            keys, values = (form for _, form in step.fixed)
            if not layer.fix((keys, values), batch) or not _are_alike(layer, read[0]):
                return False
        for places, layer in (*zip(self._cached, layers, strict=True), *zip(self._fixed, read, strict=False)):
            assert layer.rows is not None
            self._sequence.addresses[places] = [*layer.rows[0].addresses, *layer.rows[1].addresses]
        self._known = [layer.token for layer in (*layers, *read)]
        self._batch = batch
        self._room = first.room
        return True


def _are_alike(one: Int8Layer, other: Int8Layer) -> bool:
    assert one.rows is not None and other.rows is not None
    return (one.length, one.room, one.rows[0].shared) == (other.length, other.room, other.rows[0].shared)


def _empty(count: int, *shape: int) -> list[Tensor]:
    """New tensors; those of inference mode would not tell that they were written to."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return _empty_floats(count, shape)
    return _empty_floats(count, shape)


def _empty_floats(count: int, shape: tuple[int, ...]) -> list[Tensor]:
    return [torch.empty(shape, dtype=torch.float32, device="cpu") for _ in range(count)]
