"""W8A8 checkpoints of llm-compressor (`quant_method: "compressed-tensors"`, `int-quantized`), turned into our format.

Weights and their scales are taken over. Activations measured per token stay dynamic, on our affine grid; static ranges
are taken over, their signed zero point shifted by 128. Which modules are INT8 is read from the tensors: the targets and
exceptions in the configuration may be regular expressions, and none is evaluated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from . import checkpoint, convert

METHOD = "compressed-tensors"
_FORMATS = ("int-quantized", "naive-quantized")
_SIGNED_TO_UNSIGNED = 128


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
    _check_scheme(config["quantization_config"])
    files = checkpoint.weight_files(source)
    checkpoint.read_headers(files)
    stored: dict[str, torch.Tensor] = {}
    checkpoint.for_each_file(files, lambda _, handle: stored.update({n: handle.get_tensor(n) for n in handle.keys()}))
    tensors, quantization = convert_tensors(stored)
    return convert.write_checkpoint(source, out, {**config, "quantization_config": quantization}, tensors)


def convert_tensors(stored: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the `quantization_config` of our format.

    Raises:
        CheckpointError: no INT8 weight, or one without scales that fit.
    """
    names = [
        key.removesuffix(".weight") for key, t in stored.items() if key.endswith(".weight") and t.dtype is torch.int8
    ]
    if not names:
        raise CheckpointError("the checkpoint holds no INT8 weight; nothing to convert")
    tensors: dict[str, torch.Tensor] = {}
    grids = {name: _input_grid(name, stored) for name in names}
    static = all(grid is not None for grid in grids.values())
    consumed: set[str] = set()
    for name in names:
        tensors.update(convert.linear_tensors(name, *_weight(name, stored)))
        grid = grids[name]
        if static and grid is not None:
            tensors[f"{name}.input_scale"], tensors[f"{name}.input_zero_point"] = grid
        parts = ("weight", "weight_scale", "weight_zero_point", "weight_shape", "input_scale", "input_zero_point")
        consumed.update(f"{name}.{part}" for part in parts)
    for key, tensor in stored.items():
        if key not in consumed:
            tensors[key] = (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
    return tensors, convert.describe(names, {}, static)


def _check_scheme(found: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless every group quantizes weights and activations to symmetric-weight INT8."""
    groups = found.get("config_groups")
    if found.get("format") not in _FORMATS or not isinstance(groups, Mapping) or not groups:
        raise CheckpointError(
            f"compressed-tensors format {found.get('format')!r}; expected one of {', '.join(_FORMATS)}"
        )
    sparsity = found.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format") not in (None, "dense"):
        raise CheckpointError(f"compressed-tensors sparsity {sparsity.get('format')!r}; expected a dense checkpoint")
    for name, group in groups.items():
        for part, strategies in (("weights", ("channel", "tensor")), ("input_activations", ("token", "tensor"))):
            scheme = group.get(part) if isinstance(group, Mapping) else None
            if not isinstance(scheme, Mapping):
                raise CheckpointError(f"compressed-tensors group {name!r} leaves its {part} float; expected INT8")
            kind = (scheme.get("num_bits"), scheme.get("type"), scheme.get("strategy"))
            if kind[:2] != (8, "int") or kind[2] not in strategies:
                raise CheckpointError(f"compressed-tensors {part} are {kind}; expected 8, 'int', one of {strategies}")
        if group["weights"].get("symmetric") is not True:
            raise CheckpointError(f"compressed-tensors group {name!r} has asymmetric weights; expected symmetric ones")


def _weight(name: str, stored: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    weight, scale = stored[f"{name}.weight"], stored.get(f"{name}.weight_scale")
    points = stored.get(f"{name}.weight_zero_point")
    if weight.dim() != 2 or scale is None or scale.numel() not in (1, weight.shape[0]):
        raise CheckpointError(f"the weight of {name!r} has no scale per row; expected a matrix with 'weight_scale'")
    if points is not None and bool((points != 0).any()):
        raise CheckpointError(f"the weight of {name!r} is asymmetric; expected zero points of 0")
    return weight, scale


def _input_grid(name: str, stored: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Scale and unsigned zero point of a static input; None when it is measured at run time."""
    scale, point = stored.get(f"{name}.input_scale"), stored.get(f"{name}.input_zero_point")
    if scale is None or scale.numel() != 1 or (point is not None and point.numel() != 1):
        return None
    signed = 0 if point is None else int(point.item())
    return scale.float().reshape(()), torch.tensor(signed + _SIGNED_TO_UNSIGNED, dtype=torch.int32)
