"""Weight norm: a weight that follows from a direction and a length, and no longer changes once a model is trained."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from ..torch_private import WeightNorm


def has_weight_norm(module: nn.Module) -> bool:
    """Whether `torch.nn.utils.parametrizations.weight_norm`, and nothing else, makes the weight of `module`.

    Its `weight` then is what a call computes, so that an INT8 module made from it computes the same. The older
    `torch.nn.utils.weight_norm` sets `weight` at each call only: what stands there before may be old.
    """
    if not parametrize.is_parametrized(module):
        return False
    found = {name: [type(part) for part in parts] for name, parts in module.parametrizations.items()}  # type: ignore[union-attr, operator]
    return found == {"weight": [WeightNorm]}
