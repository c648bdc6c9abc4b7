"""RWKV divides its weights by powers of two at the first call in evaluation, and a loaded model does so again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_RESCALED = "layers_are_rescaled"


def as_stored(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict as a checkpoint holds it: of weights that are not rescaled."""
    rescaled = [module for module in model.modules() if getattr(module, _RESCALED, False) is True]
    if not rescaled:
        return model.state_dict()
    with _scaled_back(rescaled):
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@contextmanager
def _scaled_back(modules: list[nn.Module]) -> Iterator[None]:
    """Within, the weights are as in training; exact, since the factors are powers of two."""
    modes = [module.training for module in modules]
    try:
        _rescale(modules, [True] * len(modules))
        yield
    finally:
        _rescale(modules, [False] * len(modules))
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _rescale(modules: list[nn.Module], modes: list[bool]) -> None:
    for module, mode in zip(modules, modes, strict=True):
        module.training = mode
        module._rescale_layers()  # type: ignore[operator]
