"""The structure of an INT8 model from the description in its checkpoint, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from .config import FORMAT_VERSION, QUANT_METHOD, Int8Config
from .errors import CheckpointError
from .heap import trim
from .nn import (
    FLOAT_IMPLEMENTATION,
    IMPLEMENTATION,
    Int8Module,
    attentions,
    outermost_transformers,
    run_eagerly,
    set_attention,
)
from .nn.base import QPARAMS
from .nn.families import can_unpack, unpack_attention, unpack_relative
from .passes import install
from .sites import KINDS, Sites, Storage

_NAMES = ("exclude", "exclude_attention")
"""Settings that name modules."""

ON_ACTIVATE: list[Callable[[PreTrainedModel], object]] = []
"""Called with every Transformers model that has become INT8. `hub.plugin`, of a higher rank, adds what saving needs."""


def describe(config: Int8Config, sites: Sites) -> dict[str, Any]:
    """What `config.json` says under `quantization_config`."""
    metadata = {
        "quant_method": QUANT_METHOD,
        "format_version": FORMAT_VERSION,
        "config": config.to_dict(),
        "modules": dict(sites.int8),
        "fp32": dict(sites.fp32),
    }
    return {**metadata, "per_token": list(sites.per_token)} if sites.per_token else metadata


def build_skeleton(model: nn.Module, metadata: dict[str, Any]) -> None:
    """Swap the modules that `metadata["modules"]` names for INT8 ones whose tensors are on the meta device, in place.

    Raises:
        CheckpointError: a name or a kind that does not fit the model.
    """
    config = Int8Config.from_dict(metadata["config"])
    static = config.approach != "dynamic"
    per_token = metadata.get("per_token", ())
    unpack_attention(model)
    functional = metadata.get("functional", {})
    _expose_functional(model, metadata["modules"], functional)
    _unpack_relative(model, metadata.get("unpacked", ()))
    known = dict(model.named_modules())
    with torch.device("meta"):
        for name, kind in metadata["modules"].items():
            module = known.get(name)
            if module is None:
                raise CheckpointError(
                    f"the checkpoint says that {name!r} is INT8, but {type(model).__name__} has no such module"
                )
            how = Storage(static and name not in per_token, config.activation_bits, functional.get(name))
            new = empty_module(module, name, kind, how)
            KINDS[kind].install(model, name, new)


def describe_functional(model: nn.Module, sites: Sites) -> dict[str, dict[str, Any]]:
    """What `build_skeleton` needs to know of those INT8 sites that are no modules in the model's own code."""
    found = {name: kind.describe(model, name) for name, kind in sites.kinds()}
    return {name: about for name, about in found.items() if about is not None}


def _expose_functional(model: nn.Module, modules: dict[str, str], functional: dict[str, Any]) -> None:
    """Make modules of what a checkpoint describes, once all of it is found in the model."""
    described: dict[str, dict[str, Any]] = {}
    for name, about in functional.items():
        described.setdefault(modules[name], {})[name] = about
    for kind, found in described.items():
        KINDS[kind].check_source(model, found)
    for kind, found in described.items():
        KINDS[kind].expose(model, found)


def _unpack_relative(model: nn.Module, names: Iterable[str]) -> None:
    known = dict(model.named_modules())
    for name in names:
        if name not in known or not can_unpack(known[name]):
            raise CheckpointError(
                f"the checkpoint says that {name!r} is attention with relative positions, but {type(model).__name__} has no "
                f"such module"
            )
    unpack_relative(model, names)


def empty_module(module: nn.Module, name: str, kind: str, how: Storage) -> Int8Module:
    """An INT8 module without values in the place of `module`. Raises `CheckpointError` when that is of another kind."""
    new = KINDS[kind].empty(module, how) if kind in KINDS else None
    if new is None:
        raise CheckpointError(
            f"the checkpoint says that {name!r} is an INT8 {kind}, but the model has a {type(module).__name__} there"
        )
    return new


def expected_tensors(model: nn.Module) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Name to dtype and shape of every tensor that a checkpoint of this (skeleton) model must hold.

    Tables that Transformers computes (Marian's positions) are in the model, and never in its checkpoint.
    """
    computed = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    state = model.state_dict()
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items() if name not in computed}


def finish_loading(model: nn.Module, metadata: dict[str, Any]) -> nn.Module:
    """Once the tensors are in place: check their values, pack the weights, plug in attention, install fine-grained FX.

    Raises:
        CheckpointError: a scale that is not finite and positive, or a zero point outside 0..255.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, Int8Module)}
    _check_values(found)
    for module in found.values():
        module.finish_loading()
    trim(now=True)  # the weights as they were read
    return activate(model, metadata)


def activate(model: nn.Module, metadata: dict[str, Any]) -> nn.Module:
    """Make a model whose INT8 modules are complete run as one: attention plugged in, blocks fused when the config says so."""
    transformers = {p: m for p, m in outermost_transformers(model).items() if not p or _holds_int8(m)}
    for path, transformer in transformers.items():  # one inside another module saves itself
        transformer.config.quantization_config = metadata_below(metadata, path)
    if not isinstance(model, PreTrainedModel):
        model.int8_metadata = metadata  # type: ignore[assignment]  # with the tensors, all that `build_skeleton` needs
    kinds = {KINDS[kind] for kind in metadata["modules"].values()}
    for kind in kinds:
        kind.activate(model)
    if all(kind.takes_place for kind in kinds) and _takes_any_core(model):
        set_attention(model, IMPLEMENTATION)
    run_eagerly(model)
    model.requires_grad_(
        False
    )  # so that gradients are computed where the caller asks for them, and blocks run fused elsewhere
    settings = metadata["config"]
    if settings.get("fuse", True):  # what a checkpoint does not say was not there when it was made
        install(model, settings.get("residuals", "float32") if settings["approach"] == "static" else "float32")
    for transformer in transformers.values():
        for prepare in ON_ACTIVATE:
            prepare(transformer)
    return model


def metadata_below(metadata: dict[str, Any], path: str) -> dict[str, Any]:
    """What `metadata` says of the module at `path`, under the names that it has there."""
    if not path:
        return metadata
    prefix = f"{path}."

    def keep(names: Iterable[str]) -> list[str]:
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    found = dict(metadata)
    for key in ("modules", "fp32", "functional"):
        if key in metadata:
            found[key] = {name: metadata[key][prefix + name] for name in keep(metadata[key])}
    for key in ("per_token", "unpacked"):
        if key in metadata:
            found[key] = keep(metadata[key])
    found["config"] = {**metadata["config"], **{key: keep(metadata["config"].get(key, ())) for key in _NAMES}}
    return found


def _holds_int8(model: nn.Module) -> bool:
    return any(isinstance(module, Int8Module) for module in model.modules())


def _takes_any_core(model: nn.Module) -> bool:
    """Whether float32 cores may run on our kernel: only where the model's own are torch's, with nothing special about them."""
    return set(attentions(model).values()) <= {FLOAT_IMPLEMENTATION, IMPLEMENTATION}


def _check_values(modules: Mapping[str, Int8Module]) -> None:
    """Look at all scales at once, and at all zero points: a model has hundreds of small ones."""
    found: dict[str, Tensor] = {}
    for name, module in modules.items():
        found |= {f"{name}.{key}": x for key, x in module.named_buffers(recurse=False) if QPARAMS.fullmatch(key)}
    for ending, is_right, wrong in (
        ("scale", _is_scale, "holds a value that is zero, negative or not finite"),
        ("zero_point", _is_zero_point, "is outside 0..255"),
    ):
        tensors = {name: tensor for name, tensor in found.items() if name.endswith(ending)}
        if tensors and not is_right(torch.cat([tensor.flatten() for tensor in tensors.values()])):
            name = next(name for name, tensor in tensors.items() if not is_right(tensor))
            raise CheckpointError(f"{name} {wrong}; the checkpoint is damaged")


def _is_scale(tensor: Tensor) -> bool:
    return bool((torch.isfinite(tensor) & (tensor > 0)).all())


def _is_zero_point(tensor: Tensor) -> bool:
    return bool(((tensor >= 0) & (tensor <= 255)).all())
