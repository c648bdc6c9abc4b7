"""PyTorch as it is, with images and the weights of convolutions channels-last: often its faster layout."""

from __future__ import annotations

import torch

from ..models import Call, Inputs, Job, Loaded
from .torch_module import loaded_module

NAME = "eager_channels_last"
TITLE = "eager FP32, channels last"
REQUIRES: tuple[str, ...] = ()
LIMIT = 1e-4


def prepare(job: Job) -> None:
    """Nothing to convert."""


def load(job: Job) -> Loaded:
    """The model itself, in the other layout."""
    loaded = loaded_module(job.fp32().to(memory_format=torch.channels_last), job)

    def bind(inputs: Inputs) -> Call:
        return loaded.bind({name: x.contiguous(memory_format=torch.channels_last) for name, x in inputs.items()})

    return Loaded(bind, loaded.output)
