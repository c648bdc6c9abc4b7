"""`find_linears`: the bare parameters that `F.linear` reads, found in the source of a Transformers model, for want of an example to listen to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from .find_experts import whole_weights


def find_linears(model: nn.Module, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What `expose` takes, for those of the parameters `names` that their module hands to `F.linear` as they are (a router's weight).

    Of Transformers' models alone: their sources are known to say what runs.
    """
    if not isinstance(model, PreTrainedModel):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        parameter = owner._parameters[leaf]
        if parameter is not None and parameter.dim() == 2 and leaf in whole_weights(type(owner)):
            found[f"{name}.linear"] = {"op": "linear"}
    return found
