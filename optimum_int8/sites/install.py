"""INT8 modules brought into a model, and their quantization parameters set."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..nn.base import Int8Module


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Install `new` everywhere `old` is used."""
    waiting = [model]
    seen = {model}
    while waiting:  # `model.modules()` takes ten times as long, and a model has hundreds of sites
        parent = waiting.pop()
        for child_name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[child_name] = new
                _replace_in_containers(parent, old, new)
            elif child is not None and child._modules and child not in seen:
                seen.add(child)
                waiting.append(child)


def _replace_in_containers(parent: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Modules that a parent keeps in a plain list as well (`PredictionBlock` of MaskFormer) are called from there."""
    for key, value in vars(parent).items():
        if isinstance(value, list) and any(item is old for item in value):
            value[:] = [new if item is old else item for item in value]
        elif type(value) is tuple and any(item is old for item in value):
            setattr(parent, key, tuple(new if item is old else item for item in value))
        elif isinstance(value, dict) and not key.startswith("_"):
            value.update({name: new for name, item in value.items() if item is old})


def set_qparams(module: Int8Module, qparams: Mapping[str, tuple[float, int]]) -> None:
    """Set scale and, where the input has one, zero point on uint8, by the input's name."""
    for name, (scale, zero_point) in qparams.items():
        setattr(module, f"{name}_scale", torch.tensor(scale))
        if f"{name}_zero_point" in module._buffers:
            setattr(module, f"{name}_zero_point", torch.tensor(zero_point, dtype=torch.int32))
