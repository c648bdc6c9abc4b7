"""A checkpoint of one class for a model of another: a base model, a tower, another head, other settings.

Transformers gives each tensor of a file a place in the model by its name: renamed where the class has older names, with or
without the prefix of the base model. What has no place is left out with a warning; what the file does not have is
initialized anew with a warning. Here the description of the INT8 modules follows the same rules: a module whose weight has
no place is left out, and what is initialized anew stays float. A model that has a place for float tensors only (the body
of an image classifier whose head alone is INT8) is a float model.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightRenaming

from ..config import Int8Config
from ..errors import CheckpointError
from ..nn.families import unpack_attention
from ..restore import empty_module
from ..sites import KINDS, Storage
from .checkpoint import TensorInfo
from .ties import groups

INITIALIZED = "not in the checkpoint: initialized anew"
"""Why a module is FP32 that the checkpoint has no weight for."""


@dataclass
class Adapted:
    """A checkpoint as a model needs it.

    Attributes:
        metadata: the quantization metadata, of the modules that the model has.
        headers: the tensors that have a place, under the model's names.
        names: tensor in the files to tensor of the model, for all in the files.
        surplus: names of what belongs to INT8 modules left out and has no counterpart in a float model: scales.
        place: the name in the model of any tensor of the files.
    """

    metadata: dict[str, Any]
    headers: dict[str, TensorInfo]
    names: dict[str, str]
    surplus: list[str]
    place: Callable[[str], str | None]

    @classmethod
    def unchanged(cls, metadata: dict[str, Any], headers: dict[str, TensorInfo]) -> Adapted:
        """For a model of the class and the settings that the checkpoint was saved from."""
        return cls(metadata, headers, {name: name for name in headers}, [], lambda name: None)


class _AsRead(ConversionOps):
    """Leaves a tensor as it was read."""

    def convert(self, input_dict: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The same tensors."""
        return input_dict


class ExactNames(WeightConverter):
    """Tells Transformers each tensor's name in the model, in the place of the rules for names of its own files.

    It is a converter that takes every name: of a tensor that no converter takes, Transformers makes a regular expression, a seventh of
    the time that loading a T5-base took.
    """

    __slots__ = ("names",)

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__(["^$"], [""], operations=[_AsRead()])
        self.names = names

    def rename_source_key(self, source_key: str) -> tuple[str, str | None]:
        """The name in the model, and the pattern by which Transformers finds this converter."""
        return self.names.get(source_key, source_key), self.source_patterns[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> ExactNames:
        """One for another tensor, which shares the names."""
        one = copy.copy(self)
        one.collected_tensors = defaultdict(list)
        one.layer_targets = defaultdict(set)
        return one

    def convert(self, layer_name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The tensor as it was read."""
        return {layer_name: self.materialize_tensors()[self.source_patterns[0]]}


def adapt(model: PreTrainedModel, metadata: dict[str, Any], headers: Mapping[str, TensorInfo]) -> Adapted:
    """Give the modules and tensors of a checkpoint their places in `model`, which is still float.

    Args:
        model: the skeleton of the class that the caller chose; its `nn.MultiheadAttention` modules are unpacked.
        metadata: of the checkpoint.
        headers: tensors of the checkpoint.
    """
    unpack_attention(model)
    places = _Places(model, metadata)
    names = {name: places.tensor(name) for name in headers}
    found = {to: info for name, info in headers.items() if (to := names[name]) is not None}
    left_out = _unusable(model, places, metadata, found)
    for name in left_out:
        del places.modules[name]
    found = {name: info for name, info in found.items() if places.has_place(name)}
    owners = {name: _owner(name, metadata["modules"]) for name in headers}
    surplus = [
        name
        for name, owner in owners.items()
        if owner is not None and owner not in places.modules and not name.endswith((".weight", ".bias"))
    ]
    translated = _translated(model, metadata, places, found)
    return Adapted(translated, found, {name: to or name for name, to in names.items()}, surplus, places.tensor)


def refuse_lost(model: PreTrainedModel, adapted: Adapted, lost: Collection[str]) -> None:
    """A tensor that another class has no use for may be missing; one that was in the file and is not there any more may not.

    Args:
        lost: names in the files of tensors that have a checksum only.

    Raises:
        CheckpointError: the model would initialize one of them anew.
    """
    tied = {name for group in groups(model.all_tied_weights_keys or {}) for name in group}
    computed = getattr(model, "_keys_to_ignore_on_save", None) or ()
    for name in sorted(lost):
        to = adapted.place(name)
        if to is not None and to not in adapted.headers and to not in tied and not {name, to} & set(computed):
            raise CheckpointError(f"tensor {name!r} is missing from the checkpoint; fetch it again")


class _Places:
    """Where the modules and tensors of a checkpoint are in a model."""

    def __init__(self, model: PreTrainedModel, metadata: Mapping[str, Any]) -> None:
        self.state = set(model.state_dict())
        self.known = {name for name, _ in model.named_modules()}
        self.kinds: Mapping[str, str] = metadata["modules"]
        self.functional: Mapping[str, Any] = metadata.get("functional", {})
        self.rename = _renamer(model)
        self.unpacked = {
            place for name in metadata.get("unpacked", ()) if (place := self._first(name, self.known.__contains__))
        }
        found = {name: self._first(f"{name}.weight", self._exists(name, kind)) for name, kind in self.kinds.items()}
        self.modules = {name: place for name, place in found.items() if place is not None}

    def tensor(self, name: str) -> str | None:
        """The name in the model of a tensor of the files; None when it has no place there."""
        owner = _owner(name, self.kinds)
        if owner is not None:
            if owner in self.modules:
                return self.modules[owner] + name.removeprefix(owner)
            if KINDS[self.kinds[owner]].loads_by_weight and not name.endswith((".weight", ".bias")):
                return None
        return next((to for to in self.rename(name) if to in self.state), None)

    def has_place(self, name: str) -> bool:
        """Whether a tensor under this name belongs to a float module of the model, or to an INT8 one that is used."""
        return name in self.state or _owner(name, set(self.modules.values())) is not None

    def name(self, name: str) -> str | None:
        """The name in the model of any module or parameter; None when it has none."""
        if name in self.modules:
            return self.modules[name]
        return self._first(name, lambda to: to in self.known or to in self.state or f"{to}.weight" in self.state)

    def _first(self, name: str, exists: Callable[[str], bool]) -> str | None:
        candidates = (to.removesuffix(".weight") if name.endswith(".weight") else to for to in self.rename(name))
        return next((to for to in candidates if exists(to)), None)

    def _exists(self, name: str, kind: str) -> Callable[[str], bool]:
        def exists(place: str) -> bool:
            if any(place.startswith(f"{module}.") for module in self.unpacked):
                return True
            return KINDS[kind].has_place(place, self.known, self.state, name in self.functional)

        return exists


def _renamer(model: PreTrainedModel) -> Callable[[str], Iterator[str]]:
    """The names that Transformers would give a tensor of a file, the likeliest first."""
    rules = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    prefix = f"{model.base_model_prefix}." if model.base_model_prefix else ""

    def rename(name: str) -> Iterator[str]:
        renamed = name
        for rule in rules:
            renamed, _ = rule.rename_source_key(renamed)
        for to in dict.fromkeys((renamed, name)):
            if prefix and to.startswith(prefix):
                yield to.removeprefix(prefix)
            if prefix:
                yield prefix + to
            yield to

    return rename


def _owner(tensor: str, modules: Container[str]) -> str | None:
    """The innermost of `modules` that a tensor belongs to."""
    path = tensor.rpartition(".")[0]
    while path and path not in modules:
        path = path.rpartition(".")[0]
    return path or None


def _unusable(
    model: PreTrainedModel, places: _Places, metadata: dict[str, Any], found: Mapping[str, TensorInfo]
) -> list[str]:
    """Names in the checkpoint of modules that the model cannot take: of another kind or size there, or without their weight.

    Those of another size stay float, so that Transformers says so, or leaves them out with `ignore_mismatched_sizes`.
    """
    config = Int8Config.from_dict(metadata["config"])
    per_token = metadata.get("per_token", ())
    members = {name: group for group in groups(model.all_tied_weights_keys or {}) for name in group}
    unusable = []
    for name, place in places.modules.items():
        kind = places.kinds[name]
        if not KINDS[kind].loads_by_weight or name in places.functional or place not in places.known:
            continue
        weight = f"{place}.weight"
        tied = [other for other in members.get(weight, ()) if other in found and found[other].dtype is torch.int8]
        if weight not in found and not tied:
            unusable.append(name)
            continue
        how = Storage(config.approach != "dynamic" and name not in per_token, config.activation_bits)
        try:
            with torch.device("meta"):
                new = empty_module(model.get_submodule(place), place, kind, how)
        except CheckpointError:
            unusable.append(name)
            continue
        sizes = {f"{place}.{key}": tuple(tensor.shape) for key, tensor in new.state_dict().items()}
        if any(found[key].shape != size for key, size in sizes.items() if key in found):
            unusable.append(name)
    return unusable


def _translated(
    model: PreTrainedModel, metadata: dict[str, Any], places: _Places, found: Mapping[str, TensorInfo]
) -> dict[str, Any]:
    """The metadata under the model's names, without what the model does not have."""

    def keep(values: Mapping[str, Any], place: Callable[[str], str | None]) -> dict[str, Any]:
        return {to: value for name, value in values.items() if (to := place(name)) is not None}

    result = {**metadata, "modules": keep(metadata["modules"], places.modules.get)}
    if not result["modules"] and not (found and all(info.dtype.is_floating_point for info in found.values())):
        raise CheckpointError(
            f"no INT8 module of the checkpoint has a place in {type(model).__name__}; load it with the class that its config.json "
            "names, or one that shares its modules"
        )
    fp32 = keep(metadata["fp32"], places.name)
    for name, module in model.named_modules():
        weight = f"{name}.weight"
        if not list(module.children()) and weight in places.state and weight not in found:
            fp32.setdefault(name, INITIALIZED)
    result["fp32"] = {name: reason for name, reason in fp32.items() if name not in result["modules"]}
    if "functional" in metadata:
        result["functional"] = keep(metadata["functional"], places.modules.get)
    if "per_token" in metadata:
        result["per_token"] = list(keep(dict.fromkeys(metadata["per_token"]), places.modules.get))
    if "unpacked" in metadata:
        result["unpacked"] = list(keep(dict.fromkeys(metadata["unpacked"]), places.name))
    return result
