"""Bare parameters that are weights, found in the source of the modules that read them: without an example to trace.

`F.linear(x, self.weight)` reads a matrix; `F.linear(x, self.weight[i])` says `[experts, out, in]`, `x @ self.weight[i]` and
`torch.bmm(x, self.weight)` say `[experts, in, out]`. The source is parsed, never run, and a guess costs speed alone: what another function
reads are float values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ...nn.expert_weight import Experts
from .source_products import stacked_weights, whole_weights


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
        if parameter is not None and parameter.dim() == 2 and leaf in whole_weights(type(owner)):  # type: ignore[arg-type]
            found[f"{name}.linear"] = {"op": "linear"}
    return found


def find_experts(model: nn.Module) -> dict[str, bool]:
    """Qualified names of parameters, with whether they are `[experts, in, out]` and not `[experts, out, in]`."""
    found = {}
    for path, module in model.named_modules():
        stacks = {n for n, p in module._parameters.items() if p is not None and p.dim() == 3 and p.is_floating_point()}
        if not stacks or type(module).__module__.startswith("torch.nn.") or isinstance(module, Experts):
            continue
        for name, transposed in stacked_weights(type(module)).items():  # type: ignore[arg-type]
            if name in stacks:
                found[f"{path}.{name}" if path else name] = transposed
    return found
