"""The precision of what is not INT8 in an INT8 model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

HALVES = (torch.float16, torch.bfloat16)
"""Types of 16 bits."""


def widen(model: nn.Module) -> nn.Module:
    """Make every float tensor of 16 bits float32, in place, and say so in the configuration of a Transformers model."""
    owners = _computed(model)
    halves = any(tensor.dtype in HALVES for tensor in (*model.parameters(), *model.buffers()))
    if halves or _says_half(model):
        model._apply(_widened)
    with torch.no_grad():
        for module, owner in owners.items():
            owner._init_weights(module)
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            _say_float32(module.config)
    return model


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in HALVES else tensor


def _says_half(model: nn.Module) -> bool:
    """Whether a module says that its weight is 16 bits wide, which it holds in INT8."""
    return any(vars(module).get("dtype") in HALVES for module in model.modules())


def _computed(model: nn.Module) -> dict[nn.Module, PreTrainedModel]:
    """Modules that hold nothing but 16-bit buffers which Transformers computes at loading (frequencies of rotary positions), each with the
    model that does. Cast to 16 bits they have lost what computing them again gives back, here as after loading."""
    found: dict[nn.Module, PreTrainedModel] = {}
    for owner in model.modules():
        if not isinstance(owner, PreTrainedModel):
            continue
        for module in owner.modules():
            buffers = dict(module.named_buffers())
            computed = buffers.keys() <= module._non_persistent_buffers_set and next(module.parameters(), None) is None
            if computed and any(buffer.dtype in HALVES for buffer in buffers.values()):
                found[module] = owner
    return found


def _say_float32(config: PreTrainedConfig) -> None:
    if _is_half(config.dtype):
        config.dtype = torch.float32
    for key in config.sub_configs:
        part = getattr(config, key, None)
        if isinstance(part, PreTrainedConfig):
            _say_float32(part)


def _is_half(dtype: object) -> bool:
    return str(dtype).removeprefix("torch.") in ("float16", "bfloat16")
