"""Stacks of experts' matrices as modules and back: and what a checkpoint says of them."""

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


def describe_stack(stack: nn.Module) -> dict[str, Any] | None:
    """What `expose_experts` needs to know of an INT8 stack; None for another module."""
    return {"op": OP, "transposed": stack.transposed} if isinstance(stack, Int8Experts) else None
