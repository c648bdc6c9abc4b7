"""What kinds with a weight share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .. import numerics
from .settings import RecipeEntry


def computed_weight(module: nn.Module) -> str:
    """Whether a weight follows from other tensors (weight norm): what reads it may be old, and a checkpoint names the others. Nothing if not."""
    for name in ("weight", "bias"):
        if parametrize.is_parametrized(module, name):
            by = ", ".join(type(part).__name__.lstrip("_") for part in module.parametrizations[name])  # type: ignore[index]
            return f"its {name} is computed from others by {by}"
    return "" if "weight" in module._parameters else "its weight is computed from others before each call"


def set_weight_scales(module: Any, weight: Tensor, entry: RecipeEntry) -> None:
    """Quantize the float weight `[out, ...]` again on a recipe's scales, where the module has others."""
    if not entry.weight_scales:
        return
    given = torch.tensor(entry.weight_scales)
    rows = len(module.weight_scale)
    if len(given) != (rows if entry.per_channel else 1):
        return
    given = given.expand(rows)
    if torch.equal(given, module.weight_scale):
        return
    matrix = weight.detach().to(torch.float32).flatten(1)
    q = torch.round(matrix * numerics.reciprocal(given).unsqueeze(1)).clamp(-numerics.SIGNED_MAX, numerics.SIGNED_MAX)
    state = module.state_dict()
    state["weight"] = q.to(torch.int8).reshape(state["weight"].shape)
    state["weight_scale"] = given.contiguous()
    module.load_state_dict(state)
