"""torch.ao's quantize_dynamic."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from ..models import Job, Loaded
from .torch_module import loaded_module

NAME = "torch_dynamic"
TITLE = "torch.ao dynamic"
REQUIRES: tuple[str, ...] = ()
LIMIT = 0.15


def prepare(job: Job) -> None:
    """Nothing: quantizing takes a second."""


def load(job: Job) -> Loaded:
    """Quantize the linears, with the default backend of this processor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.ao.quantization import quantize_dynamic

        return loaded_module(quantize_dynamic(job.fp32(), {nn.Linear}, dtype=torch.qint8, inplace=True), job)
