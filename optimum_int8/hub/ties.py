"""Tied weights of INT8 modules: stored once, and tied again after loading.

Transformers ties parameters and looks them up as such; the tensors of INT8 modules are buffers, a weight comes with its
scale, and a packed weight cannot be assigned. So these ties are taken out of its hands while it loads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping

import torch
from transformers import PreTrainedModel

from ..nn import Int8Embedding, Int8Linear, Int8Module

_SUFFIXES = ("", "_scale")
"""A weight, and the scale that comes with an INT8 one."""


def groups(ties: Mapping[str, str]) -> list[list[str]]:
    """The names that share a tensor, its source first, from a mapping of targets to sources.

    Example:
        >>> groups({"encoder.weight": "shared.weight", "head.weight": "encoder.weight"})
        [['shared.weight', 'encoder.weight', 'head.weight']]
    """
    found: dict[str, list[str]] = {}
    for target in ties:
        source = ties[target]
        seen = {target}
        while source in ties and source not in seen:
            seen.add(source)
            source = ties[source]
        found.setdefault(source, [source]).append(target)
    return list(found.values())


def take(model: PreTrainedModel, present: Collection[str]) -> dict[str, str]:
    """Remove the ties of INT8 modules from `model.all_tied_weights_keys` and return those to make: target to source.

    With one side of a tie excluded from quantization, float and INT8 modules are in one group: each target gets a source of
    its own kind where one is stored, and a float target without one the values of the INT8 table.

    Args:
        model: the skeleton, its INT8 modules in place.
        present: names of the stored tensors; a target that is stored itself stays untied.
    """
    ties = getattr(model, "all_tied_weights_keys", None) or {}
    missing: dict[str, str] = {}
    for group in groups(ties):
        is_int8 = {name: isinstance(model.get_submodule(name.rpartition(".")[0]), Int8Module) for name in group}
        if not any(is_int8.values()):
            continue
        stored = [name for name in group if name in present]
        for target in group:
            same_kind = [name for name in stored if is_int8[name] == is_int8[target]]
            if not is_int8[target] and not is_int8[ties.get(target, target)] and (same_kind or not stored):
                continue  # both are parameters: Transformers ties them
            ties.pop(target, None)
            sources = same_kind or ([] if is_int8[target] and target.endswith("weight") else stored)
            if target not in present and sources:
                missing[target] = sources[0]
    expected = [re.escape(target + suffix) + "$" for target in missing for suffix in _SUFFIXES]
    model._keys_to_ignore_on_load_missing = [*(model._keys_to_ignore_on_load_missing or []), *expected]
    return missing


def tie(model: PreTrainedModel, ties: Mapping[str, str]) -> None:
    """Make each target share the tensors of its source; call it before the weights are packed."""
    for target, source in ties.items():
        (to_name, _, leaf), from_name = target.rpartition("."), source.rpartition(".")[0]
        module = model.get_submodule(to_name)
        origin = model.get_submodule(from_name)
        if not isinstance(module, Int8Module):
            is_table = leaf == "weight" and isinstance(origin, (Int8Embedding, Int8Linear))
            value = origin.dequantize() if is_table else model.get_parameter_or_buffer(source).detach()
            parameter = getattr(module, leaf)
            parameter.data = value.to(parameter.dtype)
            continue
        setattr(module, leaf, model.get_parameter_or_buffer(source).detach())
        if leaf == "weight":
            module.weight_scale = origin.weight_scale
        if leaf == "weight" and isinstance(module, Int8Linear) and isinstance(origin, Int8Embedding):
            module.tie(origin)
    model.all_tied_weights_keys.update(ties)


def without_copies(model: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict without the tensors of tied modules that equal those of another module of their group."""
    kept = dict(state)
    for group in groups(getattr(model, "all_tied_weights_keys", None) or {}):
        stored: list[str] = []
        for name in (name for name in group if name in kept):
            if any(_equal(kept, name, other) for other in stored):
                for suffix in _SUFFIXES:
                    kept.pop(name + suffix, None)
            else:
                stored.append(name)
    return _separated(model, kept)


def _separated(model: PreTrainedModel, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of INT8 modules that share their storage with another stored tensor as copies: Transformers would leave them out."""
    users = Counter(tensor.data_ptr() for tensor in state.values() if tensor.numel())
    for name, tensor in state.items():
        if users[tensor.data_ptr()] > 1 and isinstance(model.get_submodule(name.rpartition(".")[0]), Int8Module):
            users[tensor.data_ptr()] -= 1
            state[name] = tensor.clone()
    return state


def _equal(state: Mapping[str, torch.Tensor], first: str, second: str) -> bool:
    """Whether two weights hold the same values with the same scales."""
    for suffix in _SUFFIXES:
        one = state.get(first + suffix)
        other = state.get(second + suffix)
        if one is None or other is None:
            if one is not other:
                return False
        elif one.dtype != other.dtype or not torch.equal(one, other):
            return False
    return True
