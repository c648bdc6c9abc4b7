"""`FunctionalWeight`: a parameter that other people's code hands to `F.linear`, `F.conv1d` or `F.conv2d`, as a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Int8Module
from .slot import WeightSlot

_FUNCTIONS: dict[Callable[..., Any], str] = {F.linear: "linear", F.conv1d: "conv1d", F.conv2d: "conv2d"}

FUNCTIONAL = tuple(_FUNCTIONS.values())
"""Functions whose weight can be a parameter that becomes a `FunctionalWeight`."""

OPTIONS = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
"""Settings of a convolution, with torch's defaults."""

_CONVS: dict[str, Any] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d}


class FunctionalWeight(WeightSlot):
    """Stands where a parameter stood: `F.linear(x, module.weight, bias)` runs its child, named like the function.

    The child is an `nn.Linear`, `nn.Conv1d` or `nn.Conv2d` without bias, or its INT8 or fake-quantized counterpart; the bias stays the caller's.
    Other functions read the float matrix.
    """

    def __init__(self, op: str, parameter: nn.Parameter, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.op = op
        self.add_module(op, functional_module(op, parameter, options))

    @property
    def module(self) -> nn.Module:
        """What computes."""
        return self._modules[self.op]  # type: ignore[return-value]

    def float_weight(self) -> Tensor:
        """See `WeightSlot`."""
        return self.module.weight  # type: ignore[return-value]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The one function that this weight is for on INT8, others in float."""
        op = _FUNCTIONS.get(func)
        if op is None:
            return super().__torch_function__(func, types, args, kwargs)
        x, weight, bias, options = weighted_arguments(func, args, kwargs or {})
        if not isinstance(weight, FunctionalWeight) or weight.op != op:
            return super().__torch_function__(func, types, args, kwargs)
        module = weight.module
        fits = weight.op == "linear" or geometry(functional_module(weight.op, weight, options)) == geometry(module)
        if not fits:  # in float: calibration saw another stride
            return func(x, module.weight, bias, **options)
        if isinstance(module, Int8Module):
            return module(x, bias)
        y = module(x)  # with its hooks, which calibration needs
        return y if bias is None else y + bias.view(-1, *[1] * (weight.dim() - 2))


def weighted_arguments(func: Any, args: Any, kwargs: Mapping[str, Any]) -> tuple[Tensor, Any, Any, dict[str, Any]]:
    """Input, weight, bias and the other arguments of `F.linear` or a convolution."""
    names = ("input", "weight", "bias", *(() if func is F.linear else OPTIONS))
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    x, weight, bias = (given.pop(name, None) for name in names[:3])
    return x, weight, bias, given


def functional_module(op: str, weight: Any, options: Mapping[str, Any]) -> nn.Module:
    """The module without bias that computes `op` with this weight; an INT8 one's weight is left out."""
    rows, columns, *kernel = weight.shape
    if op == "linear":
        module: nn.Module = nn.Linear(columns, rows, bias=False, device="meta")
    else:
        values: dict[str, Any] = {**OPTIONS, **options}
        values = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in values.items()}
        module = _CONVS[op](columns * values["groups"], rows, tuple(kernel), bias=False, device="meta", **values)
    if isinstance(weight, Tensor):
        module.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight)
    return module


def geometry(module: Any) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups of a convolution."""
    return module.stride, module.padding, module.dilation, module.groups
