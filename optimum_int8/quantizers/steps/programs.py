"""Captured graphs for a checkpoint that has none, from calls with random inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ...errors import CheckpointError, ConfigError
from ...evaluation.architectures import example_inputs
from ...hub import OptimizedModel
from ...hub.programs import PROGRAMS_NAME, write
from .loading import is_int8, load_config

_STEPS = 3
"""Tokens to generate: the first comes from the prompt, the second from a cache, the third shows that the graph holds."""


def add_programs(folder: str | Path, batch: int = 2, length: int = 16) -> dict[str, Any]:
    """Call the INT8 model in `folder` as users do, alone and in a padded batch, and store what was captured beside its weights.

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
    call_examples(model, batch, length)
    if not write(model, path):
        raise CheckpointError(f"nothing that the model in {str(folder)!r} captures can be stored; it captures as ever")
    return {"file": str(path / PROGRAMS_NAME), "bytes": (path / PROGRAMS_NAME).stat().st_size}


@torch.inference_mode()
def call_examples(model: PreTrainedModel, batch: int, length: int) -> None:
    """Calls that capture what most users' calls need."""
    for rows in dict.fromkeys((1, max(2, batch))):
        example = example_inputs(model, rows, length)
        model(**example)
        if "attention_mask" in example and length > 1:
            padded = {**example, "attention_mask": example["attention_mask"].clone()}
            padded["attention_mask"][0, : length // 2] = 0
            model(**padded)
            example = padded if rows > 1 else example
        if model.can_generate() and "input_ids" in example:
            prompt = {name: example[name] for name in ("input_ids", "attention_mask")}
            steps = {"max_new_tokens": _STEPS, "min_new_tokens": _STEPS}
            model.generate(**prompt, **steps, do_sample=False, pad_token_id=model.config.pad_token_id or 0)
