"""What the converters of other packages' INT8 checkpoints share: the pieces of ours, and the folder they go to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..config import FORMAT_VERSION, QUANT_METHOD, Int8Config
from ..sites import LINEAR
from . import binding, checkpoint
from .guards import TOKENIZER_FILES
from .save import written_beside


def linear_tensors(name: str, weight: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
    """The stored weight of an `Int8Linear`.

    Args:
        name: of the module.
        weight: int8 `[out, in]`; -128, which `optimum_int8.quantize` never makes, is computed with as it is.
        scale: one value, or one for each of the rows in any shape.
    """
    scale = scale.float().reshape(-1).expand(weight.shape[0])
    return {
        f"{name}.weight": weight.unsqueeze(-1).contiguous(),
        f"{name}.weight_scale": scale.contiguous(),
    }


def describe(modules: Iterable[str], fp32: Mapping[str, str], static: bool) -> dict[str, Any]:
    """The `quantization_config` of a checkpoint whose linears alone are INT8."""
    config = Int8Config(approach="static" if static else "dynamic", attention="float32", quantize_embeddings=False)
    return {
        "quant_method": QUANT_METHOD,
        "format_version": FORMAT_VERSION,
        "config": config.to_dict(),
        "modules": dict.fromkeys(modules, LINEAR),
        "fp32": dict(fp32),
    }


def write_checkpoint(
    source: Path, out: str | os.PathLike[str], config: Mapping[str, Any], tensors: dict[str, torch.Tensor]
) -> Path:
    """Write `config.json`, the weights and the tokenizer of `source` into the folder `out`, completely or not at all."""
    with written_beside(Path(out)) as scratch:
        text = json.dumps({**config, "dtype": "float32"}, indent=2) + "\n"
        (scratch / checkpoint.CONFIG_NAME).write_text(text, encoding="utf-8")
        sums = {checkpoint.CHECKSUMS_KEY: checkpoint.checksums(tensors)}
        header = {"format": "pt", **sums, binding.BINDING_KEY: binding.bind(config)}
        save_file(tensors, scratch / checkpoint.WEIGHTS_NAME, header)
        for name in (*TOKENIZER_FILES, "generation_config.json"):
            if (source / name).is_file():
                shutil.copyfile(source / name, scratch / name)
    return Path(out).absolute()
