"""PyTorch as it is."""

from __future__ import annotations

from ..models import Job, Loaded
from .torch_module import loaded_module

NAME = "eager_fp32"
TITLE = "eager FP32"
REQUIRES: tuple[str, ...] = ()
LIMIT = 1e-4


def prepare(job: Job) -> None:
    """Nothing to convert."""


def load(job: Job) -> Loaded:
    """The model itself."""
    return loaded_module(job.fp32(), job)
