"""`copy_of`: a copy of any model, also of one that holds what was computed from its parameters."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

from ..errors import QuantizationError

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def copy_of(model: AnyModule) -> AnyModule:
    """A deep copy. Tensors with a gradient's history, which `copy.deepcopy` refuses (the weight of `torch.nn.utils.weight_norm`, an output that
    a module keeps), are copied as values.

    Raises:
        QuantizationError: the model holds what cannot be copied, such as a lock or an open file.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 4)
        >>> model.last = model(torch.ones(4))
        >>> torch.equal(copy_of(model).last, model.last)
        True
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise QuantizationError(
            f"this {type(model).__name__} cannot be copied ({type(error).__name__}: {reason}); take out what it holds besides its weights, or "
            f"pass inplace=True"
        ) from error
