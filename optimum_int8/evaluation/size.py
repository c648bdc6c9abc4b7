"""Checkpoint size in bytes, counted the same way for FP32 and INT8."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..errors import CheckpointError

MEGABYTE = 1_000_000
"""Bytes in the megabyte of reports (decimal, as file managers and the Hub show it)."""


def fp32_size(model: nn.Module) -> int:
    """Bytes of the checkpoint of `model` in float32: 4 per floating-point element, whatever its present dtype.

    A tensor that several modules share counts once, as safetensors stores it.
    """
    return sum(t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in _stored_tensors(model))


def stored_size(model: nn.Module) -> int:
    """Bytes of the tensors of `model` as they are; shared ones once. The file adds a header of some kilobytes."""
    return sum(t.numel() * t.element_size() for t in _stored_tensors(model))


def checkpoint_size(folder: str | Path) -> int:
    """Bytes of all `*.safetensors` files of a saved model.

    Raises:
        CheckpointError: the folder has none.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"no *.safetensors file in {str(folder)!r}; expected the folder of a saved model")
    return sum(file.stat().st_size for file in files)


def _stored_tensors(model: nn.Module) -> list[torch.Tensor]:
    """The tensors of the state dict, one for each distinct piece of memory."""
    seen: dict[tuple[int, ...], torch.Tensor] = {}
    for value in model.state_dict().values():
        if isinstance(value, torch.Tensor):
            # A meta or empty tensor has no address; it then counts by its identity.
            address = value.untyped_storage().data_ptr() if value.device.type != "meta" else 0
            seen.setdefault((address or -id(value), int(value.storage_offset()), *value.shape), value)
    return list(seen.values())
