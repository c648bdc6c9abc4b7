"""A run of a module that leaves it as it was: what runs on a slice of a call must not be remembered by a module that remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Int8Module
from .arguments import Key, NotCapturable
from .own_run import OwnError, Ran, run_own

_LARGEST = 1 << 24
"""Bytes up to which a tensor is copied. Parameters above are tables, which no forward writes to."""

_MOST = 1 << 26
"""And all of them together."""

_COLLECTIONS = (list, dict, set)


def try_own(
    module: nn.Module, forward: Callable[..., Any], key: Key, tensors: list[Tensor], layer: int | None
) -> tuple[Any, list[Tensor]] | None:
    """What `run_own` gives for a slice; None where that says nothing: the module does not take the slice, or it remembers calls.

    What the run changed in the module is undone.
    """
    state = _State.of(module)
    if state is None:
        return None
    try:
        structure, results = run_own(module, forward, key, tensors, layer)
    except (OwnError, Ran, NotCapturable):
        state.restore()
        return None
    if state.restore() or not all(torch.isfinite(x).all() for x in results):
        return None
    return structure, results


class _State:
    """What the modules below a module hold: attributes and what is in them, and copies of tensors. INT8 modules do not write to theirs."""

    def __init__(self, module: nn.Module, tensors: list[Tensor]) -> None:
        own = [child for child in module.modules() if not isinstance(child, Int8Module)]
        self._attributes = [(vars(child), dict(vars(child))) for child in own]
        collections = [x for _, held in self._attributes for x in held.values() if type(x) in _COLLECTIONS]
        self._collections = [(x, x.copy()) for x in collections]
        self._copies = [(x, x._version if not x.is_inference() else None, x.detach().clone()) for x in tensors]

    @classmethod
    def of(cls, module: nn.Module) -> _State | None:
        """None where it holds so much that copying it would cost more than a slice saves."""
        found: dict[int, Tensor] = {}
        for child in module.modules():
            if isinstance(child, Int8Module):
                continue
            for value in vars(child).values():
                if type(value) in _COLLECTIONS:
                    items = value.values() if type(value) is dict else value
                    found.update((id(x), x) for x in items if isinstance(x, Tensor))
                elif isinstance(value, Tensor):
                    found[id(value)] = value
        large = [x for x in found.values() if x.nbytes > _LARGEST]
        small = [x for x in found.values() if x.nbytes <= _LARGEST]
        if any(not isinstance(x, nn.Parameter) for x in large) or sum(x.nbytes for x in small) > _MOST:
            return None
        return cls(module, small)

    def restore(self) -> bool:
        """Whether anything changed; it is what it was afterwards."""
        changed = False
        for now, held in self._attributes:
            if now.keys() != held.keys() or any(now[name] is not value for name, value in held.items()):
                changed = True
                for name in now.keys() - held.keys():
                    del now[name]
                now.update({name: value for name, value in held.items() if now.get(name) is not value})
        for collection, held in self._collections:
            if not _same(collection, held):
                changed = True
                collection.clear()
                collection.extend(held) if type(collection) is list else collection.update(held)
        for tensor, version, copy in self._copies:
            if not torch.equal(tensor, copy) if version is None else tensor._version != version:
                changed = True
                with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                    tensor.copy_(copy)
        return changed


def _same(collection: Any, held: Any) -> bool:
    if len(collection) != len(held):
        return False
    if type(collection) is dict:
        return collection.keys() == held.keys() and all(collection[name] is value for name, value in held.items())
    if type(collection) is set:
        return bool(collection == held)
    return all(now is before for now, before in zip(collection, held, strict=True))
