"""One operator as a program of its own, the way fine-grained FX runs it among others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..kernels.immediate import Immediate, ImmediateImages
from .registry import IMAGES, MASK, REGISTRY, Operator, as_float, bind


def run_as_program(name: str, *args: Any) -> Any:
    """The result of the operator `name` of `torch.ops.optimum_int8` on these arguments, by one program where it can be part of one.

    Tests and benchmarks measure the kernels by it: called by itself, an operator of several results is several calls.
    """
    operator = REGISTRY[name]
    named = bind(operator.overload, args)
    if operator.emit is None or not _has_rows(operator, named):
        return operator.compute(*args)
    for name in operator.values:
        if isinstance(named[name], Tensor) and named[name].is_floating_point():
            named[name] = as_float(named[name])
    if "ids" in named:
        named["ids"] = named["ids"].to(torch.int64)  # as programs read them
    first = named[operator.values[0]]
    shape = first[0].shape if isinstance(first, (list, tuple)) else first.shape
    if operator.domains == (IMAGES,):
        return _as_traced(_run_images(operator, named, shape), operator, named)
    lead = shape[:-1] if operator.values[0] != "ids" else shape
    e = Immediate(lead)
    given = {key: e.value(value) if key in operator.values else value for key, value in named.items() if key != MASK}
    made = operator.emit(e, **given)
    if MASK in named or e.is_periodic:
        earlier = named["past_k"].shape[1] if "past_k" in named else 0
        keys = named["k"].shape[1] + earlier if "k" in named else None
        found = e.run(made, lead[0], lead[1], named.get(MASK), keys)
    else:
        found = e.run(made)
    return _as_traced(found, operator, named)


def _has_rows(operator: Operator, named: dict[str, Any]) -> bool:
    """Whether the values have the same rows, and any: programs do not broadcast."""
    values = [named[name] for name in operator.values if isinstance(named[name], Tensor)]
    if any(x.numel() == 0 for x in values) or (values and values[0].dim() == 0):
        return False
    if operator.domains == (IMAGES,) or operator.keys or "ids" in operator.values:
        return True
    lead = values[0].shape[:-1] if values else ()
    return all(not x.dim() or lead in (x.shape, x.shape[:-1]) for x in values)


def _run_images(operator: Operator, named: dict[str, Any], shape: Any) -> Any:
    e = ImmediateImages(shape)
    given = {key: e.value(value) if key in operator.values else value for key, value in named.items()}
    return e.run_images(operator.emit(e, **given))  # type: ignore[misc]


def _as_traced(found: Any, operator: Operator, named: dict[str, Any]) -> Any:
    """A scale per row is `[rows]`, as the operator returns it."""
    fakes = operator.fake(**named)
    if isinstance(found, Tensor):
        return found.view(fakes.shape) if found.dim() != fakes.dim() else found
    return tuple(x.view(fake.shape) if x.dim() != fake.dim() else x for x, fake in zip(found, fakes, strict=True))
