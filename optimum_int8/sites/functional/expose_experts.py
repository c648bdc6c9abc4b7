"""Stacks of experts' matrices as modules and back: `expose_experts`, `conceal_experts`, and what a checkpoint says of them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from torch import nn

from ...nn.experts import FloatExperts, Int8Experts, experts_implementation, modules_with_experts, run_eagerly

OP = "experts"
"""What the description of a checkpoint calls such a parameter."""


def expose_experts(model: nn.Module, names: Mapping[str, bool]) -> nn.Module:
    """Make `FloatExperts` of parameters, in place, and let the modules that read them run their own code; the model computes what it did."""
    for name, transposed in names.items():
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        slot = FloatExperts(owner._parameters.pop(leaf), transposed).train(owner.training)  # type: ignore[arg-type]
        slot.before = experts_implementation(owner)
        owner.add_module(leaf, slot)
    run_eagerly(model)
    return model


def conceal_experts(model: nn.Module, keep: Container[str] = ()) -> nn.Module:
    """Make parameters again of the float stacks, in place, but for the sites `keep`."""
    before: list[tuple[nn.Module, str | None]] = []
    for path, owner in list(model.named_modules()):
        for leaf, slot in list(owner._modules.items()):
            if isinstance(slot, FloatExperts) and (f"{path}.{leaf}" if path else leaf) not in keep:
                del owner._modules[leaf]
                owner.register_parameter(leaf, slot.weight)
                before.append((owner, slot.before))
    still = {id(getattr(owner, "config", None)) for owner in modules_with_experts(model)}
    for owner, name in before:
        if name is not None and id(owner.config) not in still:
            owner.config._experts_implementation = name  # type: ignore[union-attr]
    return model


def describe_experts(model: nn.Module, names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What `expose_experts` needs to know of the INT8 stacks among `names`, which are as in `Sites.int8`."""
    stacks = {name: model.get_submodule(name) for name, kind in names.items() if kind == OP}
    return {n: {"op": OP, "transposed": m.transposed} for n, m in stacks.items() if isinstance(m, Int8Experts)}
