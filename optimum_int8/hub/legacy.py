"""INT8 models published with Neural Compressor and Optimum-Intel, turned into our format.

Such a repository has `torch_dtype: "int8"` in `config.json` and a pickled `pytorch_model.bin`: the state dict of a
model of `torch.ao.quantization`, and a key `best_configure` with the settings. `torch.load` refuses it today.

Weights and biases are taken over as they are. Input ranges are taken over when every linear has its own in the file:
in eager mode under `<linear>.quant`, in FX mode in the captured block that holds it. In a block of several linears FX
stores a shared range once, under the first of its users, and which others share it is in no file; such a model measures
its ranges at run time (dynamic). Tables and convolutions have no counterpart here and become FP32, value by value.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from . import checkpoint, convert
from .download import fetch
from .guards import LEGACY_WEIGHTS, is_legacy
from .restricted import Plain, Quantized, load_pickled_tensors

logger = logging.getLogger(__name__)

_LINEAR = "._packed_params._packed_params"
_TABLE = "._packed_params._packed_weight"
_GRIDS = re.compile(r".*(\.|_)(scale|zero_point)(_\d+)?|.*\._packed_params\.dtype|(.*\.)?position_ids|best_configure")
_BLOCK_GRID = re.compile(r"[^.]*_scale_\d+")
_ZERO_POINT = "zero_point"
_DROPPED_SETTINGS = ("torch_dtype", "dtype", "framework", "backend", "torchscript")
_AGAIN = "Quantize the FP32 model again with optimum-int8"


def convert_legacy(model_id: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any) -> Path:
    """Convert a folder or repository of Neural Compressor or Optimum-Intel into an INT8 checkpoint in the folder `out`.

    Args:
        model_id: the folder or repository.
        out: the folder to write.
        options: `revision`, `cache_dir`, `token`, `local_files_only`, `subfolder`, as `OptimizedModel` takes them.

    Raises:
        CheckpointError: out of reach, or as `convert_folder`.
    """
    return convert_folder(fetch(model_id, **options), out)


def convert_folder(source: Path, out: str | os.PathLike[str]) -> Path:
    """Convert the checkpoint in the folder `source` into one of ours in the folder `out`.

    Raises:
        CheckpointError: it is not such a checkpoint, it is damaged or hostile, or it cannot be converted; the message
            says why.
    """
    config = checkpoint.read_json(source / checkpoint.CONFIG_NAME)
    if not is_legacy(config):
        raise CheckpointError(
            f"{str(source)!r} does not hold an INT8 model of Neural Compressor (torch_dtype is not 'int8')"
        )
    if not (source / LEGACY_WEIGHTS).is_file():
        raise CheckpointError(f"{LEGACY_WEIGHTS} is missing from {str(source)!r}; other layouts are not read. {_AGAIN}")
    tensors, quantization = convert_state(load_pickled_tensors(source / LEGACY_WEIGHTS))
    kept = {key: value for key, value in config.items() if key not in _DROPPED_SETTINGS}
    return convert.write_checkpoint(source, out, {**kept, "quantization_config": quantization}, tensors)


def convert_state(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the `quantization_config` of our format, from the state dict that `load_pickled_tensors` gave.

    Raises:
        CheckpointError: nothing in it is INT8, or a weight is of a kind that has no counterpart here.
    """
    tensors: dict[str, torch.Tensor] = {}
    inputs: dict[str, tuple[torch.Tensor, torch.Tensor] | None] = {}
    fp32: dict[str, str] = {}
    for key, value in state.items():
        if key.endswith(_LINEAR):
            base = key.removesuffix(_LINEAR)
            name = base.removesuffix(".module")
            tensors.update(_linear(name, value))
            inputs[name] = _input_grid(base, state)
        elif isinstance(value, Quantized) and key.endswith((_TABLE, ".weight")):
            name = key.removesuffix(_TABLE).removesuffix(".weight").removesuffix(".module")
            tensors[f"{name}.weight"] = _dequantize(value)
            fp32[name] = "an asymmetric 8-bit table in the original" if key.endswith(_TABLE) else "no linear"
        elif isinstance(value, Plain) and not _GRIDS.fullmatch(key):
            floating = value.values.is_floating_point()
            tensors[key.replace(".module.", ".")] = (value.values.float() if floating else value.values).contiguous()
        elif not _GRIDS.fullmatch(key):
            raise CheckpointError(f"{key!r} is of a kind that cannot be converted ({type(value).__name__}). {_AGAIN}")
    if not inputs:
        raise CheckpointError(f"{LEGACY_WEIGHTS} holds no INT8 linear layer; nothing to convert. {_AGAIN}")
    static = all(inputs.values())
    if not static:
        logger.warning(
            "the input ranges are not all in the file: the converted model measures them at run time (dynamic)"
        )
    for name, grid in inputs.items():
        if static and grid is not None:
            tensors[f"{name}.input_scale"], tensors[f"{name}.input_zero_point"] = grid
    return tensors, convert.describe(inputs, fp32, static)


def _linear(name: str, packed: Any) -> dict[str, torch.Tensor]:
    """The tensors of one linear from its packed pair (quantized weight, bias)."""
    weight, bias = packed if isinstance(packed, tuple | list) and len(packed) == 2 else (None, None)
    if not isinstance(weight, Quantized) or weight.values.dtype is not torch.int8 or weight.values.dim() != 2:
        raise CheckpointError(f"the weight of {name!r} is not an INT8 matrix; it cannot be converted. {_AGAIN}")
    if bool((weight.zero_points != 0).any()) or weight.axis not in (None, 0):
        raise CheckpointError(
            f"the weight of {name!r} is asymmetric or has its scales per column; neither exists here. {_AGAIN}"
        )
    if bias is not None and not isinstance(bias, Plain):
        raise CheckpointError(f"the bias of {name!r} is no tensor")
    found = convert.linear_tensors(name, weight.values, weight.scales)
    return found if bias is None else {**found, f"{name}.bias": bias.values.float().contiguous()}


def _input_grid(base: str, state: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Scale and zero point of a linear's input, if the file leaves no doubt that they are.

    Args:
        base: name of the quantized linear, with the `.module` of its wrapper if it has one.
    """
    for scale_name in _scale_names(base, state):
        scale = state.get(scale_name)
        point = state.get(_ZERO_POINT.join(scale_name.rsplit("scale", 1)))
        if isinstance(scale, Plain) and isinstance(point, Plain):
            if {scale.values.numel(), point.values.numel()} != {1}:
                raise CheckpointError(f"the input of {base!r} has a scale for each channel; expected one. {_AGAIN}")
            return scale.values.float().reshape(()), point.values.to(torch.int32).reshape(())
    return None


def _scale_names(base: str, state: Mapping[str, Any]) -> Iterator[str]:
    """Where the scale of a linear's input may be: under its own name, or as the only one of the captured block."""
    parts = base.split(".")
    if parts[-1] == "module":
        yield f"{base.removesuffix('module')}quant.scale"
    for depth in reversed(range(len(parts))):
        block = "".join(f"{part}." for part in parts[:depth])
        inside = "_".join(parts[depth:])
        yield f"{block}{inside}_input_scale_0"
        below = [key.removeprefix(block) for key in state if key.startswith(block)]
        grids = [key for key in below if _BLOCK_GRID.fullmatch(key)]
        if grids:
            if len(grids) == 1 and sum(key.endswith(_LINEAR) or key.endswith(".scale") for key in below) == 2:
                yield f"{block}{grids[0]}"
            return


def _dequantize(value: Quantized) -> torch.Tensor:
    shape = [1] * value.values.dim()
    shape[value.axis or 0] = -1
    return (value.values.float() - value.zero_points.reshape(shape)) * value.scales.reshape(shape)
