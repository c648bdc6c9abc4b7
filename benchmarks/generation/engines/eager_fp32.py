"""PyTorch in float32, as Transformers runs it."""

from __future__ import annotations

from ..models import Job, Loaded
from .transformers_model import TransformersModel

NAME = "eager_fp32"
TITLE = "eager FP32"
REQUIRES: tuple[str, ...] = ()
BYTES_PER_WEIGHT = 4.0


def load(job: Job) -> Loaded:
    """The model as it is."""
    return TransformersModel(job.fp32())
