"""What is refused of a `config.json` before a model is built from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_module_registration_hook

from ..errors import CheckpointError, ConfigError
from .checkpoint import check_metadata

MAX_DIMENSION = 1 << 31
MAX_LABELS = 1 << 20
MODULES_PER_TENSOR = 64
"""No architecture has that many modules for each tensor it stores; a layer count made absurd has."""

LEGACY_WEIGHTS = "pytorch_model.bin"
"""Pickled weights of the INT8 models that Neural Compressor and Optimum-Intel published."""

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)

_CPU_PLACES = (None, "cpu", "auto", "balanced", "balanced_low_0", "sequential")
"""Values in a `device_map` that mean the CPU where there is nothing else."""

_REFERENCES = ("attn_implementation", "_attn_implementation", "experts_implementation", "transformers_weights")


def check_config(values: Mapping[str, Any], path: str = "") -> None:
    """Refuse numbers that would only exhaust the memory, and names that reach outside the folder.

    Raises:
        CheckpointError: naming the first such key.
    """
    for key, value in values.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping):
            check_config(value, f"{name}.")
        elif type(value) is int and abs(value) > (
            MAX_LABELS if key in ("num_labels", "_num_labels") else MAX_DIMENSION
        ):
            raise CheckpointError(f"config.json sets {name} to {value}; expected a dimension a model can have")
        elif key in _REFERENCES and isinstance(value, str) and not value.replace(".", "_").isidentifier():
            # Transformers would fetch a kernel from such a repository, or open such a path.
            raise CheckpointError(f"config.json sets {name} to {value!r}; expected a plain name")


def is_legacy(values: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of an INT8 model of Neural Compressor; `hub.legacy` converts those."""
    return "int8" in (values.get("torch_dtype"), values.get("dtype")) and not values.get("quantization_config")


def check_quantization(values: Mapping[str, Any]) -> bool:
    """Check the `quantization_config` of a `config.json`; False when it has none, as that of an FP32 model.

    Raises:
        CheckpointError: it is another package's, or what `check_metadata` refuses.
    """
    found = values.get("quantization_config")
    if found is None:
        return False
    if not isinstance(found, Mapping):
        raise CheckpointError(f"quantization_config is a JSON {type(found).__name__}; expected an object")
    check_metadata(found)
    return True


def check_device_map(device_map: Any) -> None:
    """Raise `ConfigError` when Transformers' `device_map` places a module elsewhere than on the CPU."""
    for place in device_map.values() if isinstance(device_map, Mapping) else [device_map]:
        if place not in _CPU_PLACES and not (isinstance(place, torch.device) and place.type == "cpu"):
            raise ConfigError(f"device_map places a module on {place!r}; INT8 models run on the CPU: drop device_map")


@contextmanager
def limit_modules(tensors: int) -> Iterator[None]:
    """Stop this thread's model building when it makes far more modules than the checkpoint has tensors for."""
    limit = MODULES_PER_TENSOR * (tensors + 16)
    owner = threading.get_ident()
    made = 0

    def count(module: torch.nn.Module, name: str, child: torch.nn.Module | None) -> None:
        nonlocal made
        if threading.get_ident() != owner:
            return
        made += 1
        if made > limit:
            raise CheckpointError(
                f"config.json describes over {limit} modules; the weights hold {tensors} tensors only"
            )

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
