"""Tied weights of INT8 modules: stored once, and tied again after loading.

Transformers ties parameters and looks them up as such; the tensors of INT8 modules are buffers, a weight comes with its
scale, and a packed weight cannot be assigned. So these ties are taken out of its hands while it loads.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from transformers import PreTrainedModel

from ..nn import Int8Embedding, Int8Linear, Int8Module


def take(model: PreTrainedModel, present: Collection[str]) -> dict[str, str]:
    """Remove the ties of INT8 modules from `model.all_tied_weights_keys` and return those to make: target to source.

    Args:
        model: the skeleton, its INT8 modules in place.
        present: names of the stored tensors; a target that is stored itself stays untied.
    """
    ties = getattr(model, "all_tied_weights_keys", None) or {}
    taken = {
        target: source
        for target, source in ties.items()
        if any(isinstance(model.get_submodule(name.rpartition(".")[0]), Int8Module) for name in (target, source))
    }
    for target in taken:
        del ties[target]
    missing = {target: source for target, source in taken.items() if target not in present and source in present}
    expected = [re.escape(name) + "$" for target in missing for name in (target, f"{target}_scale")]
    model._keys_to_ignore_on_load_missing = [*(model._keys_to_ignore_on_load_missing or []), *expected]
    return missing


def tie(model: PreTrainedModel, ties: Mapping[str, str]) -> None:
    """Make each target share the tensors of its source; call it before the weights are packed."""
    for target, source in ties.items():
        (to_name, _, leaf), from_name = target.rpartition("."), source.rpartition(".")[0]
        module, origin = model.get_submodule(to_name), model.get_submodule(from_name)
        value = model.get_parameter_or_buffer(source).detach()
        if not isinstance(module, Int8Module):
            getattr(module, leaf).data = value
            continue
        setattr(module, leaf, value)
        if leaf == "weight":
            module.weight_scale = origin.weight_scale
        if leaf == "weight" and isinstance(module, Int8Linear) and isinstance(origin, Int8Embedding):
            module.tie(origin)
    model.all_tied_weights_keys.update(ties)


def without_copies(model: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict without the tensors of tied modules that equal those of their sources."""
    kept = dict(state)
    for target, source in (getattr(model, "all_tied_weights_keys", None) or {}).items():
        names = [(target + suffix, source + suffix) for suffix in ("", "_scale")]
        pairs = [(name, origin) for name, origin in names if name in kept and origin in kept]
        if pairs and all(torch.equal(kept[name], kept[origin]) for name, origin in pairs):
            for name, _ in pairs:
                del kept[name]
    return kept
