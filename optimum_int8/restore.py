"""The structure of an INT8 model from the description in its checkpoint, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .config import FORMAT_VERSION, QUANT_METHOD, Int8Config
from .errors import CheckpointError
from .nn import (
    CALLS,
    CHILD,
    FLOAT_IMPLEMENTATION,
    IMPLEMENTATION,
    INT8_CALLS,
    Bfloat16Attention,
    FloatExperts,
    Int8Attention,
    Int8AvgPool,
    Int8Conv,
    Int8Embedding,
    Int8Experts,
    Int8Linear,
    Int8Module,
    Int8Scores,
    Scores,
    attentions,
    outermost_transformers,
    run_eagerly,
    set_attention,
    uses_attention_interface,
)
from .nn.base import QPARAMS
from .nn.families import can_unpack, unpack_attention, unpack_relative
from .nn.pool import pool_obstacle
from .passes import install
from .sites import (
    ATTENTION,
    BFLOAT16_ATTENTION,
    CONV,
    CORES,
    EMBEDDING,
    EXPERTS,
    LINEAR,
    POOL,
    SCORES,
    Sites,
    expose,
    expose_experts,
    find_experts,
)
from .sites.functional.call_place import source_line

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
    static, per_token = config.approach != "dynamic", metadata.get("per_token", ())
    unpack_attention(model)
    functional = metadata.get("functional", {})
    _check_source(model, functional)
    expose(model, {name: about for name, about in functional.items() if about["op"] != EXPERTS})
    _expose_experts(model, functional)
    _unpack_relative(model, metadata.get("unpacked", ()))
    known = dict(model.named_modules())
    with torch.device("meta"):
        for name, kind in metadata["modules"].items():
            module = known.get(name)
            if module is None:
                raise CheckpointError(
                    f"the checkpoint says that {name!r} is INT8, but {type(model).__name__} has no such module"
                )
            if kind in CALLS and name in functional:
                about = functional[name]
                call = INT8_CALLS[kind](about["inputs_quantized"], about.get("output_quantized", False))
                put(model, name, kind, call)
            else:
                has_grid = static and name not in per_token
                put(model, name, kind, empty_module(module, name, kind, has_grid, config.activation_bits))


def _check_source(model: nn.Module, functional: dict[str, Any]) -> None:
    """Calls are found by their line in the source: refuse a model whose source is another one."""
    known = dict(model.named_modules())
    for name, about in functional.items():
        path, _, leaf = name.rpartition(".")
        if about["op"] in CALLS:
            if path not in known:
                raise CheckpointError(f"the checkpoint has an INT8 call {name!r}, but the model has no module {path!r}")
            cls = type(known[path])
            found, expected = source_line(cls, leaf), about["source"]
            if found and expected and found != expected:
                raise CheckpointError(
                    f"the source of {cls.__name__}.forward has changed: where the checkpoint has the INT8 call {leaf!r} stands "
                    f"{found!r}; expected {expected!r}. Convert the model again"
                )
        elif about["op"] == EXPERTS:
            continue
        elif path.rpartition(".")[0] not in known or path not in dict(model.named_parameters()):
            raise CheckpointError(f"the checkpoint says that {path!r} is INT8, but the model has no such parameter")


def _expose_experts(model: nn.Module, functional: dict[str, Any]) -> None:
    """Stacks of experts lie as the checkpoint says, unless the source of the model says otherwise."""
    stacks = {name: about["transposed"] for name, about in functional.items() if about["op"] == EXPERTS}
    parameters = dict(model.named_parameters(remove_duplicate=False)) if stacks else {}
    found = find_experts(model) if stacks else {}
    for name, transposed in stacks.items():
        if name not in parameters or parameters[name].dim() != 3:
            raise CheckpointError(
                f"the checkpoint says that {name!r} holds INT8 experts, but the model has no such parameter"
            )
        if found.get(name, transposed) != transposed:
            raise CheckpointError(
                f"the source of the module around {name!r} has changed: its matrices lie the other way round. Quantize the model again"
            )
    expose_experts(model, stacks)


def _unpack_relative(model: nn.Module, names: Iterable[str]) -> None:
    known = dict(model.named_modules())
    for name in names:
        if name not in known or not can_unpack(known[name]):
            raise CheckpointError(
                f"the checkpoint says that {name!r} is attention with relative positions, but {type(model).__name__} has no "
                f"such module"
            )
    unpack_relative(model, names)


def empty_module(module: nn.Module, name: str, kind: str, static: bool, activation_bits: int) -> Int8Module:
    """An INT8 module without values in the place of `module`. Raises `CheckpointError` when that is of another kind."""
    if kind == LINEAR and hasattr(module, "weight") and hasattr(module, "bias") and module.weight.dim() == 2:
        return Int8Linear.like(module, static, activation_bits)
    if kind == CONV and isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return Int8Conv.like(module, static, activation_bits)
    if kind == POOL and static and not pool_obstacle(module):
        return Int8AvgPool.like(module, activation_bits)
    if kind == EMBEDDING and isinstance(module, nn.Embedding):
        return Int8Embedding.like(module)
    if kind == ATTENTION and uses_attention_interface(module):
        return Int8Attention(static, activation_bits)
    if kind == EXPERTS and isinstance(module, FloatExperts):
        return Int8Experts(module.sizes, module.transposed, static, activation_bits, module.dtype)
    if kind == SCORES and isinstance(module, Scores):
        return Int8Scores(static, activation_bits)
    if kind == BFLOAT16_ATTENTION and uses_attention_interface(module):
        return Bfloat16Attention()
    raise CheckpointError(
        f"the checkpoint says that {name!r} is an INT8 {kind}, but the model has a {type(module).__name__} there"
    )


def put(model: nn.Module, name: str, kind: str, new: Int8Module) -> None:
    """Install an INT8 module at `name`, everywhere the module there is used; an attention core becomes a child."""
    old = model.get_submodule(name)
    if kind in CORES:
        old.add_module(CHILD, new)
        return
    for parent in list(model.modules()):
        for child_name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[child_name] = new
                _replace_in_containers(parent, old, new)


def _replace_in_containers(parent: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Modules that a parent keeps in a plain list as well (`PredictionBlock` of MaskFormer) are called from there."""
    for key, value in vars(parent).items():
        if isinstance(value, list) and any(item is old for item in value):
            value[:] = [new if item is old else item for item in value]
        elif type(value) is tuple and any(item is old for item in value):
            setattr(parent, key, tuple(new if item is old else item for item in value))
        elif isinstance(value, dict) and not key.startswith("_"):
            value.update({name: new for name, item in value.items() if item is old})


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
    for name, module in model.named_modules():
        if isinstance(module, Int8Module):
            _check_values(name, module)
            module.finish_loading()
    return activate(model, metadata)


def activate(model: nn.Module, metadata: dict[str, Any]) -> nn.Module:
    """Make a model whose INT8 modules are complete run as one: attention plugged in, blocks fused when the config says so."""
    transformers = {p: m for p, m in outermost_transformers(model).items() if not p or _holds_int8(m)}
    for path, transformer in transformers.items():  # one inside another module saves itself
        transformer.config.quantization_config = metadata_below(metadata, path)
    if not isinstance(model, PreTrainedModel):
        model.int8_metadata = metadata  # type: ignore[assignment]  # with the tensors, all that `build_skeleton` needs
    if any(kind in CORES for kind in metadata["modules"].values()) or _takes_any_core(model):
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


def _check_values(name: str, module: Int8Module) -> None:
    for key, tensor in module.named_buffers(recurse=False):
        if not QPARAMS.fullmatch(key):
            continue
        if key.endswith("scale") and not bool((torch.isfinite(tensor) & (tensor > 0)).all()):
            raise CheckpointError(
                f"{name}.{key} holds a value that is zero, negative or not finite; the checkpoint is damaged"
            )
        if key.endswith("zero_point") and not bool(((tensor >= 0) & (tensor <= 255)).all()):
            raise CheckpointError(f"{name}.{key} is outside 0..255; the checkpoint is damaged")
