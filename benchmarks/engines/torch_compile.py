"""torch.compile, FP32, dynamic shapes, the repeated layers compiled each (regional compilation).

Compiling layer by layer is what PyTorch recommends for models of equal layers: the code is the same, and is made once
instead of once per layer.
"""

from __future__ import annotations

from torch import nn

from ..models import Job, Loaded
from .torch_module import loaded_module

NAME = "torch_compile"
TITLE = "torch.compile FP32"
REQUIRES: tuple[str, ...] = ()
LIMIT = 1e-3


def prepare(job: Job) -> None:
    """Nothing: Inductor compiles at the first call, and keeps what it made in its own cache."""


def load(job: Job) -> Loaded:
    """Mark the layers for compilation."""
    model = job.fp32()
    layers = [layer for module in model.modules() if isinstance(module, nn.ModuleList) for layer in module]
    for layer in layers or [model]:
        layer.compile(dynamic=True)
    return loaded_module(model, job)
