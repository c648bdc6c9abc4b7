"""Ours, static."""

from __future__ import annotations

from ..models import Job, Loaded
from .torch_module import loaded_module

NAME = "int8_static"
TITLE = "optimum_int8 static"
REQUIRES: tuple[str, ...] = ()
LIMIT = 0.1


def prepare(job: Job) -> None:
    """Nothing: quantizing takes a second."""


def load(job: Job) -> Loaded:
    """Quantize, with the calibration batches that the other static engines get."""
    from optimum_int8 import Int8Config, quantize

    model = quantize(job.fp32(), Int8Config(approach="static"), job.calibration(), inplace=True, progress=False)
    return loaded_module(model, job)
