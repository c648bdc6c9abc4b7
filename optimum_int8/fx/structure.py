"""When two modules may share a captured graph, and what in a model may be a block."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from ..nn import FunctionalWeight, Int8AvgPool, Int8Conv, Int8Linear, Int8Module

_POSITION_IN_STACK = ("layer_idx", "layer_id", "layer_number")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def structure_key(module: nn.Module) -> tuple[Any, ...]:
    """Classes, scalar attributes and tensor shapes below `module`, equal for siblings such as a model's layers.

    Where a layer stands in its stack does not count; a captured graph is compared with each module it is bound to.
    """
    return tuple(
        (name, type(child), _scalars(child), tuple((n, t.dtype, tuple(t.shape)) for n, t in _tensors(child)))
        for name, child in module.named_modules()
    )


def _scalars(module: nn.Module) -> tuple[Any, ...]:
    plain = {k: v for k, v in vars(module).items() if type(v) in (bool, int, float, str, torch.dtype)}
    return tuple(sorted((k, v) for k, v in plain.items() if k not in _POSITION_IN_STACK))


def _tensors(module: nn.Module) -> list[tuple[str, Any]]:
    return [(k, v) for table in (module._parameters, module._buffers) for k, v in table.items() if v is not None]


def holds_int8(module: nn.Module) -> bool:
    """Whether there is anything to speed up below `module`."""
    return any(isinstance(child, Int8Module) for child in module.modules())


def is_block_candidate(module: nn.Module) -> bool:
    """Whether a graph of the whole module is worth trying: INT8 below, not a model or a container (of parameters too). Single INT8
    modules that quantize their input are: two operators called one by one cost 180 us, one program 28."""
    if isinstance(module, Int8Module):
        return isinstance(module, (Int8AvgPool, Int8Conv, Int8Linear))
    return holds_int8(module) and not isinstance(module, (PreTrainedModel, FunctionalWeight, *_CONTAINERS))


def is_stack(module: nn.Module) -> bool:
    """Whether the module runs a list of modules that could be blocks themselves, as an encoder does its layers."""
    lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
    return any(is_block_candidate(layer) for layers in lists for layer in layers)


def candidates(module: nn.Module, name: str = "", root: bool = True) -> list[tuple[str, nn.Module]]:
    """The largest modules below `module` that are worth a try; each module once."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        entries = [(path, child)] if is_block_candidate(child) else candidates(child, path, False)
        for entry in entries:
            if id(entry[1]) not in seen:
                seen.add(id(entry[1]))
                found.append(entry)
    return found
