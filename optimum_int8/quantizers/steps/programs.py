"""Captured graphs for a checkpoint, from calls with random inputs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...errors import CheckpointError, ConfigError
from ...evaluation.architectures import example_inputs
from ...hub import OptimizedModel
from ...hub.programs import PROGRAMS_NAME, write
from ...passes import find_blocks
from ...warm import warmup
from .loading import is_int8, load_config, load_tokenizer

logger = logging.getLogger(__name__)

_LONG = (20, 16)
"""Batch and length of a call in which blocks are a model's layers, not all of them together: those of over 256 tokens."""


def call_examples(model: nn.Module, processor: Any = None, batch: int = 2, length: int = 16) -> None:
    """Call an INT8 model with random inputs as users do: alone, in a padded batch, in a large one, with the arguments that its tokenizer
    gives. What it captures is then stored with it.

    Args:
        processor: the tokenizer, if there is one.
        batch, length: of the small calls.

    Raises:
        ConfigError: the length is more than the model takes, or its input is neither text nor images.
    """
    warmup(model, [(1, length), (max(2, batch), length)])
    transformer = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    sizes = [(1, length), (2, length)]
    if any(block.is_stack for block in find_blocks(model).values()):
        sizes.append(_LONG)
        warmup(model, _padded(transformer, *_LONG))
    if "token_type_ids" not in (getattr(processor, "model_input_names", None) or ()):
        return
    for size in sizes:
        calls = [
            {**call, "token_type_ids": torch.zeros_like(call["input_ids"])} for call in _padded(transformer, *size)
        ]
        warmup(model, calls)


def _padded(model: PreTrainedModel, batch: int, length: int) -> list[dict[str, Tensor]]:
    """Inputs of a call, and of one with padding."""
    inputs = example_inputs(model, batch, length)
    if batch == 1 or "attention_mask" not in inputs:
        return [inputs]
    mask = inputs["attention_mask"].clone()
    mask[0, 0] = 0
    return [inputs, {**inputs, "attention_mask": mask}]


def try_examples(model: nn.Module, processor: Any = None) -> None:
    """`call_examples`, for a model of any kind: one whose calls are not known, or that fails, captures at its own first call."""
    try:
        call_examples(model, processor)
    except Exception as reason:  # a model raises whatever it likes
        logger.debug("no graphs are captured for the checkpoint: %s", reason)


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
    call_examples(model, load_tokenizer(path).processor, batch, length)
    if not write(model, path):
        raise CheckpointError(f"nothing that the model in {str(folder)!r} captures can be stored; it captures as ever")
    return {"file": str(path / PROGRAMS_NAME), "bytes": (path / PROGRAMS_NAME).stat().st_size}
