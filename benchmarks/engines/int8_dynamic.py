"""Ours, dynamic."""

from __future__ import annotations

from ..models import Job, Loaded
from .torch_module import loaded_module

NAME = "int8_dynamic"
TITLE = "optimum_int8 dynamic"
REQUIRES: tuple[str, ...] = ()
LIMIT = 0.1


def prepare(job: Job) -> None:
    """Nothing: quantizing takes a second."""


def load(job: Job) -> Loaded:
    """Quantize."""
    from optimum_int8 import Int8Config, quantize

    return loaded_module(quantize(job.fp32(), Int8Config(approach="dynamic"), inplace=True, progress=False), job)
