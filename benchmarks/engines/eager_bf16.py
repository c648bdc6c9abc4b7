"""PyTorch with weights and activations in bfloat16."""

from __future__ import annotations

import torch

from ..models import Job, Loaded
from .torch_module import loaded_module

NAME = "eager_bf16"
TITLE = "eager BF16"
REQUIRES: tuple[str, ...] = ()
LIMIT = 0.05


def prepare(job: Job) -> None:
    """Nothing to convert."""


def load(job: Job) -> Loaded:
    """The model in bfloat16."""
    return loaded_module(job.fp32().to(torch.bfloat16), job)
