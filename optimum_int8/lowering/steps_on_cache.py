"""Steps of consecutive decoder layers on a cache in INT8, by one call of the native library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache import Int8Layer
from ..kernels import as_rows
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
        self._mask = next(iter(steps[0].mask_places), None)
        self._outputs: Any = []
        self._shared: dict[int, Any] = {}  # by tensor of the call, the places of its address
        self._cached: list[list[int]] = []
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
        past = {earlier.position for earlier in step.past}
        for position, tensor in enumerate(step.places):
            if position not in past:
                self._shared.setdefault(tensor, []).append(first + kept.inputs[position])
        self._outputs.append(first + kept.outputs[step.results[0].place])
        values = [kept.keys.codes, kept.keys.scales, kept.values.codes, kept.values.scales]
        self._cached.append([first + kept.program.external_index(rows.value) for rows in values if rows is not None])

    def __call__(self, tensors: Sequence[Tensor], layers: Sequence[Int8Layer]) -> list[Tensor] | None:
        """What each layer gives, float32 `[batch, length, columns]`. Keys and values are in the rows of the cache's layers then, which do
        not count them yet.

        Args:
            tensors: of a call of the first layer; those of its keys and values are not read.

        Returns None where the layers of the cache are of another kind: nothing was done.
        """
        hidden = as_rows(tensors[0])
        batch, length = hidden.shape[:2]
        first = layers[0]
        if not self._knows(layers, batch, length) and not self._prepare(layers, batch, length):
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
        mask = None if self._mask is None else tensors[self._mask]
        self._sequence.run(batch, length, mask, first.length + length, first.room)
        return made

    def _knows(self, layers: Sequence[Int8Layer], batch: int, more: int) -> bool:
        """Whether the rows of the layers are those of the last run, with room for more, and as many in each."""
        length = layers[0].length
        same = batch == self._batch and length + more <= self._room
        return same and [layer.token for layer in layers] == self._known and all(x.length == length for x in layers)

    def _prepare(self, layers: Sequence[Int8Layer], batch: int, more: int) -> bool:
        """Make room; False where the layers are of another kind, or not all alike."""
        first = layers[0]
        for layer, forms in zip(layers, self._forms, strict=True):
            if not layer.prepare(forms, batch, more) or layer.length != first.length or layer.room != first.room:
                return False
        for places, layer in zip(self._cached, layers, strict=True):
            assert layer.rows is not None
            keys, values = layer.rows
            self._sequence.addresses[places] = [*keys.addresses, *values.addresses]
        self._known = [layer.token for layer in layers]
        self._batch = batch
        self._room = first.room
        return True


def _empty(count: int, *shape: int) -> list[Tensor]:
    """New tensors; those of inference mode would not tell that they were written to."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return [torch.empty(shape) for _ in range(count)]
    return [torch.empty(shape) for _ in range(count)]
