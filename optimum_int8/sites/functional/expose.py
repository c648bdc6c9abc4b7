"""Functional ops in the code of other people's modules as sites: a parameter that `F.linear` or `F.conv2d` reads, and calls of
`torch.matmul`, `torch.add` and `torch.cat`, become modules, found by the parameter's name and by the place of the call in `forward`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Container, Mapping
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ...nn.base import Int8Module
from ...nn.call_modules import CALLS, FloatCall, fits_call
from ...nn.functional_weight import FUNCTIONAL, OPTIONS, FunctionalWeight
from .call_place import IN_PLACE, OPS, name_at


class _Redirect(TorchFunctionMode):
    """While the `forward` of `owner` runs, in a frame with the code `begin`: its calls that are sites go to its children."""

    def __init__(self, owner: nn.Module, begin: CodeType) -> None:
        super().__init__()
        self.owner = owner
        self.begin = begin

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        op = OPS.get(func)
        if op not in CALLS:
            return func(*args, **kwargs)
        name = name_at(op, sys._getframe(1), self.owner, self.begin)
        site = self.owner._modules.get(name) if name is not None and fits_call(op, args, kwargs) else None
        if site is None:
            return func(*args, **kwargs)
        result = site(*args, **kwargs)
        return args[0].copy_(result) if func in IN_PLACE else result


@functools.cache
def _redirecting(base: type[nn.Module]) -> type[nn.Module]:
    """`base` whose forward runs under `_Redirect`. One class per base, so that siblings are of one type."""

    @torch.compiler.disable  # dynamo cannot ask where it is: a graph break, and the same results
    @functools.wraps(base.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _Redirect(self, sys._getframe().f_code):
            return base.forward(self, *args, **kwargs)

    forward._redirects = True
    members = {"__module__": base.__module__, "__doc__": base.__doc__, "__reduce_ex__": _reduce, "forward": forward}
    cls = type(base.__name__, (base,), members)
    cls.__qualname__ = base.__qualname__
    return cls


def _reduce(self: nn.Module, protocol: int) -> tuple[Any, ...]:
    """Copies and pickles name the class by its base."""
    return _blank, (type(self).__bases__[0],), vars(self)


def _blank(base: type[nn.Module]) -> nn.Module:
    cls = _redirecting(base)  # type: ignore[arg-type]
    return cls.__new__(cls)


def expose(model: nn.Module, functional: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Make modules of functional ops, in place; the model computes what it did.

    Args:
        functional: from a site's qualified name (`block.weight.linear`, `block.matmul_3`) to what it is: `op`, and for a convolution its
            `stride`, `padding`, `dilation` and `groups`; for a call the text of its `source` line.
    """
    for name, about in functional.items():
        path, _, leaf = name.rpartition(".")
        if about["op"] in FUNCTIONAL:
            parent, _, parameter = path.rpartition(".")
            owner = model.get_submodule(parent)
            options = {key: about[key] for key in OPTIONS if key in about}
            slot = FunctionalWeight(about["op"], owner._parameters.pop(parameter), options)  # type: ignore[arg-type]
            owner.add_module(parameter, slot.train(owner.training))
        else:
            owner = model.get_submodule(path)
            owner.add_module(leaf, FloatCall(about["op"]).train(owner.training))
            if not hasattr(type(owner).forward, "_redirects"):
                owner.__class__ = _redirecting(type(owner))  # type: ignore[arg-type]
    return model


def conceal(model: nn.Module, keep: Container[str] = ()) -> nn.Module:
    """Make parameters again of the weights that `expose` made modules of and that are float still, in place, but for the sites `keep`."""
    for path, owner in list(model.named_modules()):
        for name, slot in list(owner._modules.items()):
            if not isinstance(slot, FunctionalWeight) or isinstance(slot.module, Int8Module):
                continue
            if f"{path}.{name}.{slot.op}".removeprefix(".") not in keep:
                del owner._modules[name]
                owner.register_parameter(name, slot.module.weight)
    return model
