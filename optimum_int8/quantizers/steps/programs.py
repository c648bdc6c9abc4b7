"""Captured graphs for a checkpoint that has none, from calls with random inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import CheckpointError, ConfigError
from ...hub import OptimizedModel
from ...hub.programs import PROGRAMS_NAME, write
from ...warm import warmup
from .loading import is_int8, load_config


def add_programs(folder: str | Path, batch: int = 2, length: int = 16) -> dict[str, Any]:
    """Call the INT8 model in `folder` as users do, alone and in a padded batch, and store what was captured next to its weights.

    Args:
        batch: rows of the batch.
        length: tokens of each row. The graphs are for every batch and length; blocks are others beyond 256 tokens.

    Returns:
        `file` and `bytes`.

    Raises:
        CheckpointError: no folder with an INT8 model, the disk refuses, or nothing of the model can be stored.
        ConfigError: the length is more than the model takes, or its input is neither text nor images.
    """
    path = Path(folder)
    if not path.is_dir():
        raise CheckpointError(f"{str(folder)!r} is no folder; expected one that holds an INT8 model")
    if not is_int8(load_config(str(path))):
        raise ConfigError(f"{str(folder)!r} holds an FP32 model; quantize it first")
    model = OptimizedModel.from_pretrained(path)
    warmup(model, [(1, length), (max(2, batch), length)])
    if not write(model, path):
        raise CheckpointError(f"nothing that the model in {str(folder)!r} captures can be stored; it captures as ever")
    return {"file": str(path / PROGRAMS_NAME), "bytes": (path / PROGRAMS_NAME).stat().st_size}
