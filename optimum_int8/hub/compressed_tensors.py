"""W8A8 checkpoints of llm-compressor (`quant_method: "compressed-tensors"`, `int-quantized`), turned into our format.

Weights, their scales and static ranges are taken over value by value: a signed zero point becomes ours by adding 128.
Activations measured per token are measured so here too, on our affine grid, which is never coarser than a symmetric one.
Which modules are INT8 is read from the tensors: the targets and exceptions in the configuration may be regular
expressions, and none is evaluated.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from . import checkpoint, convert

logger = logging.getLogger(__name__)

METHOD = "compressed-tensors"
_FORMATS = ("int-quantized", "naive-quantized")
_SIGNED_TO_UNSIGNED = 128
_PARTS = ("weight", "weight_scale", "weight_zero_point", "weight_shape", "input_scale", "input_zero_point")
_CACHE_PARTS = tuple(f".{kind}_{part}" for kind in "kv" for part in ("scale", "zero_point"))


def is_compressed_tensors(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a compressed-tensors checkpoint."""
    found = config.get("quantization_config")
    return isinstance(found, Mapping) and found.get("quant_method") == METHOD


def convert_folder(source: Path, out: str | os.PathLike[str]) -> Path:
    """Convert the checkpoint in the folder `source` into one of ours in the folder `out`.

    Raises:
        CheckpointError: damaged, or of another scheme than INT8 weights and INT8 activations; the message says which.
    """
    config = checkpoint.read_json(source / checkpoint.CONFIG_NAME)
    static = _check_scheme(config["quantization_config"])
    files = checkpoint.weight_files(source)
    checkpoint.read_headers(files)
    stored: dict[str, torch.Tensor] = {}
    checkpoint.for_each_file(files, lambda _, handle: stored.update({n: handle.get_tensor(n) for n in handle.keys()}))
    tensors, quantization = convert_tensors(stored, static)
    return convert.write_checkpoint(source, out, {**config, "quantization_config": quantization}, tensors)


def convert_tensors(stored: Mapping[str, torch.Tensor], static: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the `quantization_config` of our format.

    Args:
        stored: the tensors of the checkpoint.
        static: whether it has a range for the input of every INT8 module.

    Raises:
        CheckpointError: no INT8 weight, or one without scales that fit.
    """
    names = [
        key.removesuffix(".weight") for key, t in stored.items() if key.endswith(".weight") and t.dtype is torch.int8
    ]
    if not names:
        raise CheckpointError("the checkpoint holds no INT8 weight; nothing to convert")
    tensors: dict[str, torch.Tensor] = {}
    consumed = {f"{name}.{part}" for name in names for part in _PARTS}
    for name in names:
        tensors.update(convert.linear_tensors(name, *_weight(name, stored)))
        if static:
            tensors[f"{name}.input_scale"], tensors[f"{name}.input_zero_point"] = _input_grid(name, stored)
    for key, tensor in stored.items():
        if key not in consumed and not key.endswith(_CACHE_PARTS):
            tensors[key] = (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
    return tensors, convert.describe(names, {}, static)


def _check_scheme(found: Mapping[str, Any]) -> bool:
    """Whether the input ranges are static. Raises `CheckpointError` unless every group is W8A8 as we compute it."""
    groups = found.get("config_groups")
    if found.get("format") not in _FORMATS or not isinstance(groups, Mapping) or not groups:
        raise CheckpointError(
            f"compressed-tensors format {found.get('format')!r}; expected one of {', '.join(_FORMATS)}"
        )
    sparsity = found.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format") not in (None, "dense"):
        raise CheckpointError(f"compressed-tensors sparsity {sparsity.get('format')!r}; expected a dense checkpoint")
    if found.get("transform_config"):
        raise CheckpointError("compressed-tensors transforms (rotations) are not computed here; expected none")
    if found.get("kv_cache_scheme"):
        logger.warning("the checkpoint describes a quantized KV cache; here the cache stays float")
    kinds = {_check_group(name, group) for name, group in groups.items()}
    if len(kinds) > 1:
        logger.warning("only some input ranges are in the file: all are measured at run time (dynamic)")
    return kinds == {True}


def _check_group(name: str, group: Any) -> bool:
    """Whether the input range of a group is static. Raises `CheckpointError` unless it is W8A8."""
    for part, strategies in (("weights", ("channel", "tensor")), ("input_activations", ("token", "tensor"))):
        scheme = group.get(part) if isinstance(group, Mapping) else None
        if not isinstance(scheme, Mapping):
            raise CheckpointError(f"compressed-tensors group {name!r} leaves its {part} float; expected INT8")
        kind = (scheme.get("num_bits"), scheme.get("type"), scheme.get("strategy"))
        if kind[:2] != (8, "int") or kind[2] not in strategies:
            raise CheckpointError(f"compressed-tensors {part} are {kind}; expected 8, 'int', one of {strategies}")
    if group.get("format") not in (None, *_FORMATS):
        raise CheckpointError(f"compressed-tensors group {name!r} has the format {group['format']!r}")
    if group.get("output_activations"):
        raise CheckpointError(f"compressed-tensors group {name!r} quantizes its outputs; expected its inputs only")
    if group["weights"].get("symmetric") is not True:
        raise CheckpointError(f"compressed-tensors group {name!r} has asymmetric weights; expected symmetric ones")
    inputs = group["input_activations"]
    static = inputs.get("dynamic", False) is False
    if inputs.get("dynamic", False) not in (True, False) or (static and inputs["strategy"] == "token"):
        raise CheckpointError(
            f"compressed-tensors group {name!r} has inputs with dynamic={inputs.get('dynamic')!r} per "
            f"{inputs['strategy']}; expected one static range per tensor, or dynamic=true"
        )
    return static


def _weight(name: str, stored: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    weight = stored[f"{name}.weight"]
    scale = stored.get(f"{name}.weight_scale")
    points = stored.get(f"{name}.weight_zero_point")
    if weight.dim() != 2 or scale is None or scale.numel() not in (1, weight.shape[0]):
        raise CheckpointError(f"the weight of {name!r} has no scale per row; expected a matrix with 'weight_scale'")
    if points is not None and bool((points != 0).any()):
        raise CheckpointError(f"the weight of {name!r} is asymmetric; expected zero points of 0")
    return weight, scale


def _input_grid(name: str, stored: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and unsigned zero point of a static input."""
    scale = stored.get(f"{name}.input_scale")
    point = stored.get(f"{name}.input_zero_point")
    if scale is None or scale.numel() != 1 or (point is not None and point.numel() != 1):
        raise CheckpointError(
            f"the configuration says that the input of {name!r} has a static range; expected one 'input_scale'"
        )
    signed = 0 if point is None else int(point.item())
    return scale.float().reshape(()), torch.tensor(signed + _SIGNED_TO_UNSIGNED, dtype=torch.int32)
