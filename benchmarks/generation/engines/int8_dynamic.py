"""Ours, dynamic."""

from __future__ import annotations

from ..models import Job, Loaded
from .transformers_model import TransformersModel

NAME = "int8_dynamic"
TITLE = "optimum_int8 dynamic"
REQUIRES: tuple[str, ...] = ()
BYTES_PER_WEIGHT = 1.0


def load(job: Job) -> Loaded:
    """Quantize."""
    from optimum_int8 import Int8Config, quantize

    config = Int8Config(approach="dynamic")
    return TransformersModel(quantize(job.fp32(), config, inplace=True, progress=False))
