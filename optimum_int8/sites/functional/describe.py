"""What a checkpoint says of sites that are bare parameters in the model's own code: made, checked, and compared with a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ...errors import CheckpointError
from ...nn.functional_weight import FUNCTIONAL, OPTIONS, FunctionalWeight, geometry


def describe_weight(model: nn.Module, name: str) -> dict[str, Any] | None:
    """The function that reads the parameter, and a convolution's geometry; None for a module of the model's own."""
    path = name.rpartition(".")[0]
    parent = model.get_submodule(path) if path else model
    if not isinstance(parent, FunctionalWeight):
        return None
    found: dict[str, Any] = {"op": parent.op}
    if parent.op != "linear":
        found |= dict(zip(OPTIONS, geometry(parent.module), strict=True))
    return found


def is_weight_description(name: str, about: Mapping[str, Any]) -> bool:
    """Whether `describe_weight` could have made this of the site `name`."""
    op = about.get("op")
    return op in FUNCTIONAL and name.rpartition(".")[2] == op and all(map(_is_option, about.values()))


def check_weights(model: nn.Module, described: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `CheckpointError` where the float model has no such parameter."""
    known = {name for name, _ in model.named_modules()}
    parameters = {name for name, _ in model.named_parameters()}
    for name in described:
        path = name.rpartition(".")[0]
        if path.rpartition(".")[0] not in known or path not in parameters:
            raise CheckpointError(f"the checkpoint says that {path!r} is INT8, but the model has no such parameter")


def _is_option(value: Any) -> bool:
    """Numbers of a convolution's geometry, or a name of padding."""
    if isinstance(value, (list, tuple)):
        return len(value) <= 2 and all(type(v) is int and 0 <= v < 1 << 20 for v in value)
    return isinstance(value, str) or (type(value) is int and 0 < value < 1 << 20)
