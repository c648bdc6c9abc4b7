"""Which tensors of a float model must hold finite numbers, and the check that they do."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..config import Int8Config
from ..errors import QuantizationError

_RUNNING_STATISTICS = ("running_mean", "running_var")


def check_finite(model: nn.Module, config: Int8Config) -> None:
    """Refuse a model with a tensor that would turn its results into NaN. What `config` excludes is the caller's business.

    NaN is refused in parameters and in buffers that checkpoints store. Infinity is refused in parameters and in the running statistics of
    norms; other buffers may hold it, and so may a model's own parameter that is an additive mask, of 0 and -inf alone.

    Raises:
        QuantizationError: names the tensor and what it holds.
    """
    seen: set[int] = set()
    for name, module in _kept(model, config):
        for key, tensor, may_be_infinite in _tensors(module):
            path = f"{name}.{key}" if name else key
            if id(tensor) in seen or path in config.exclude:
                continue
            seen.add(id(tensor))
            found = _fault(tensor, may_be_infinite)
            if found:
                where = repr(name) if name else f"the {type(module).__name__}"
                instead = f", or exclude {name!r}" if name else ""
                raise QuantizationError(
                    f"{key} of {where} holds values that are not finite: {found} of {tensor.numel()}; "
                    f"correct the FP32 model{instead}"
                )


def _kept(model: nn.Module, config: Int8Config) -> Iterator[tuple[str, nn.Module]]:
    """Modules that are not excluded, nor below one that is."""
    excluded: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in excluded):
            continue
        if name in config.exclude or type(module).__name__ in config.exclude_types:
            excluded.append(name)
        else:
            yield name, module


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """A module's own tensors by name, and whether they may hold infinity."""
    own = not type(module).__module__.startswith("torch.nn.")
    for key, parameter in module._parameters.items():
        if parameter is not None:
            yield key, parameter, own and key not in ("weight", "bias") and _is_additive_mask(parameter)
    for key, buffer in module._buffers.items():
        if buffer is not None and key not in module._non_persistent_buffers_set:
            yield key, buffer, key not in _RUNNING_STATISTICS


def _fault(tensor: Tensor, may_be_infinite: bool) -> str:
    """How many values are wrong and what they are, or nothing."""
    values = tensor.detach()
    if not (values.is_floating_point() or values.is_complex()) or values.itemsize == 1 or values.is_meta:
        return ""  # torch compares no 8-bit floats
    if bool(torch.isfinite(values).all()):
        return ""
    nans = int(values.isnan().sum())
    if nans:
        return f"{nans} NaN"
    return "" if may_be_infinite else f"{int(values.isinf().sum())} infinite"


def _is_additive_mask(values: Tensor) -> bool:
    """Whether it holds 0, somewhere, and -inf alone."""
    zeros = values.detach() == 0
    return bool(zeros.any()) and bool((zeros | (values.detach() == -torch.inf)).all())
