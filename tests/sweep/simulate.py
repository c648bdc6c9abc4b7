"""A float model whose weights, inputs and attention are rounded where an INT8 model rounds them: the error that quantization explains.

Written from the definition in README and plain torch, not from the package's modules, so that a fault there cannot hide here.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from optimum_int8.nn import Int8Module

CORE = "_sweep_core"


def round_weight(weight: Tensor) -> Tensor:
    """Symmetric, 255 levels, a scale per first axis."""
    rows = weight.detach().flatten(1)
    scale = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-30)
    return ((rows / scale).round().clamp(-127, 127) * scale).reshape(weight.shape)


def round_input(x: Tensor, scale: Tensor | None, zero_point: Tensor | None, axes: tuple[int, ...] = (-1,)) -> Tensor:
    """256 levels: of the tensor where calibrated, else of each row, or of each image, from its extremes and zero."""
    if not x.is_floating_point() or not x.numel():
        return x
    if scale is None or zero_point is None:
        low, high = x.amin(axes, keepdim=True).clamp(max=0), x.amax(axes, keepdim=True).clamp(min=0)
        scale = ((high - low) / 255).clamp(min=1e-30)
        zero_point = (-low / scale).round()
    return (((x / scale).round() + zero_point).clamp(0, 255) - zero_point) * scale


def round_core_input(x: Tensor, scale: Tensor | None) -> Tensor:
    """Symmetric: of the tensor where calibrated, else of each row."""
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30) if scale is None else scale
    return (x / scale).round().clamp(-127, 127) * scale


def simulate(model: nn.Module, int8: nn.Module) -> nn.Module:
    """A copy of `model` that rounds at the sites of `int8`."""
    fake = copy.deepcopy(model)
    floats = dict(fake.named_modules())
    rounded: set[int] = set()
    for name, module in int8.named_modules():
        if not isinstance(module, Int8Module):
            continue
        target = floats.get(name)
        if target is None or not any(True for _ in target.parameters(recurse=False)):
            _special(name, module, floats, rounded)
            continue
        _round_parameters(target, rounded)
        if not isinstance(target, nn.Embedding):
            _round_inputs(target, module)
    return fake


def _round_parameters(module: nn.Module, rounded: set[int]) -> None:
    """Matrices, once each; they may be tied."""
    for parameter in module.parameters(recurse=False):
        if parameter.dim() < 2 or id(parameter) in rounded:
            continue
        rounded.add(id(parameter))
        if isinstance(module, Conv1D):
            parameter.data = round_weight(parameter.T).T.contiguous()
        elif parameter.dim() == 3 and not isinstance(module, nn.Conv1d):
            parameter.data = round_weight(parameter.flatten(0, 1)).reshape(parameter.shape)
        else:
            parameter.data = round_weight(parameter)


def _round_inputs(module: nn.Module, int8: nn.Module) -> None:
    scale, zero_point = getattr(int8, "input_scale", None), getattr(int8, "input_zero_point", None)
    if scale is not None and scale.dim():  # of each expert; which rows it gets is not known here
        scale = zero_point = None
    convolution = isinstance(module, (nn.Conv1d, nn.Conv2d))

    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not args or not isinstance(args[0], Tensor):
            return None
        axes = tuple(range(1 - args[0].dim() if args[0].dim() > 1 else -1, 0)) if convolution else (-1,)
        return (round_input(args[0], scale, zero_point, axes), *args[1:])

    module.register_forward_pre_hook(hook)


def _special(name: str, int8: nn.Module, floats: dict[str, nn.Module], rounded: set[int]) -> None:
    """What has no module of its name in the float model: attention cores, bare parameters, experts."""
    parent, _, child = name.rpartition(".")
    owner = floats.get(parent)
    if owner is not None and child == "int8_attention":
        setattr(owner, CORE, tuple(getattr(int8, f"{part}_scale", None) for part in ("query", "key", "value")))
        return
    while parent and owner is None:
        parent, _, child = parent.rpartition(".")
        owner = floats.get(parent)
    if owner is not None:
        _round_parameters(owner, rounded)
        _round_inputs(owner, int8)


@contextlib.contextmanager
def rounded_cores(model: nn.Module) -> Iterator[None]:
    """Queries, keys and values of marked attention modules are rounded before the function that the FP32 model itself calls."""
    with contextlib.ExitStack() as stack:
        original = ALL_ATTENTION_FUNCTIONS["sdpa"]
        stack.enter_context(mock.patch.dict(ALL_ATTENTION_FUNCTIONS._local_mapping, {"sdpa": _rounding(original)}))
        for module in {type(m).__module__ for m in model.modules()}:
            place = sys.modules.get(module)
            eager = getattr(place, "eager_attention_forward", None)
            if eager is not None:
                stack.enter_context(mock.patch.object(place, "eager_attention_forward", _rounding(eager)))
        yield


def _rounding(function: Any) -> Any:
    def rounding(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        scales = getattr(module, CORE, None)
        if scales is not None:
            query, key, value = (round_core_input(x, s) for x, s in zip((query, key, value), scales, strict=True))
        return function(module, query, key, value, *args, **kwargs)

    return rounding
