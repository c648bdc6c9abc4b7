"""When two modules may share a captured graph, and what in a model may be a block."""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from ..nn import Experts, FunctionalWeight, Int8AvgPool, Int8Conv, Int8Linear, Int8Module, is_sentence_transformers
from .arguments import NotCapturable

_NOT_SETTINGS = frozenset(
    {"layer_idx", "layer_id", "layer_number"}  # where a layer stands in its stack
    | set(vars(nn.Module()))  # tables of tensors, children and hooks
) - {"training"}
_PLAIN = (bool, int, float, str, torch.dtype, types.FunctionType, types.BuiltinFunctionType)


class _Other:
    """Stands for objects that are no plain values: the same text in every process, so that stored graphs are found again."""

    def __repr__(self) -> str:
        return "<another object>"


_UNKNOWN = _Other()
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def structure_key(module: nn.Module) -> tuple[Any, ...]:
    """Classes, settings and tensor shapes below `module`, equal for siblings such as a model's layers.

    Where a layer stands in its stack does not count; a captured graph is compared with each module it is bound to.

    Raises:
        NotCapturable: no graph would hold for the module.
    """
    if _holds_adapters(module):
        raise NotCapturable("adapters of PEFT are inside, which can be switched")
    return tuple(
        (name, type(child), _settings(child), tuple((n, t.dtype, tuple(t.shape)) for n, t in _tensors(child)))
        for name, child in module.named_modules()
    )


def _settings(module: nn.Module) -> tuple[Any, ...]:
    """Attributes that may decide what a forward computes: plain values, functions, and lists of them (a convolution's geometry)."""
    settings = ((name, _plain(value)) for name, value in vars(module).items() if name not in _NOT_SETTINGS)
    return tuple(
        sorted((setting for setting in settings if setting[1] is not _UNKNOWN), key=lambda setting: setting[0])
    )


def _plain(value: Any) -> Any:
    """A hashable copy of a plain value, with its type: 1, 1.0 and True are equal. `_UNKNOWN` for other objects, such as modules."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_plain(item) for item in value)
    if isinstance(value, functools.partial):
        return functools.partial, _plain(value.func), _plain(value.args), _plain(value.keywords)
    if type(value) is dict:
        return dict, tuple((str(key), _plain(item)) for key, item in value.items())
    return _UNKNOWN


def _tensors(module: nn.Module) -> list[tuple[str, Any]]:
    return [(k, v) for table in (module._parameters, module._buffers) for k, v in table.items() if v is not None]


def holds_int8(module: nn.Module) -> bool:
    """Whether there is anything to speed up below `module`."""
    return any(isinstance(child, Int8Module) for child in module.modules())


def is_block_candidate(module: nn.Module) -> bool:
    """Whether a graph of the whole module is worth trying: INT8 below, not a model (Sentence Transformers' modules pass on the
    dictionaries of one) or a container (of parameters too). Single INT8
    modules that quantize their input are: two operators called one by one cost 180 us, one program 28."""
    if isinstance(module, Int8Module):
        return isinstance(module, (Int8AvgPool, Int8Conv, Int8Linear))
    if isinstance(module, (PreTrainedModel, FunctionalWeight, *_CONTAINERS)) or not holds_int8(module):
        return False
    if is_sentence_transformers(module):
        return False  # passes on dictionaries
    return not any(isinstance(child, Experts) for child in module.modules())  # which of them run, the data decide


def _holds_adapters(module: nn.Module) -> bool:
    """Whether layers of PEFT are below: plain attributes, which no call of a block sees change, switch their adapters on and off."""
    return any(type(child).__module__.partition(".")[0] == "peft" for child in module.modules())


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
