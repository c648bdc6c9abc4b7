"""`WeightSlot`: a module where a parameter stood, which is still a matrix to whoever reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..torch_private import tree_map

_OPERATORS = (
    *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__"),
    *("__matmul__", "__rmatmul__", "__pow__", "__rpow__", "__neg__", "__abs__", "__getitem__", "__len__", "__iter__"),
)
_CASTS = ("to", "float", "half", "double", "bfloat16", "cpu", "type")
"""Names that modules and tensors have in common; here they mean what they mean of a tensor."""


class WeightSlot(nn.Module):
    """Base of the modules that stand where a parameter stood.

    A subclass computes the functions it knows on INT8. To every other function, operator, method and attribute it is the float matrix.
    """

    def float_weight(self) -> Tensor:
        """The matrix, of the parameter's shape and dtype."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or not hasattr(Tensor, name):
                raise
            return getattr(self.float_weight(), name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Any function, on the float matrix."""
        return func(*tree_map(_float, args), **tree_map(_float, kwargs or {}))


def _float(value: Any) -> Any:
    return value.float_weight() if isinstance(value, WeightSlot) else value


def _operator(name: str) -> Callable[..., Any]:
    def operator(self: WeightSlot, *args: Any) -> Any:
        return getattr(self.float_weight(), name)(*map(_float, args))

    return operator


def _cast(name: str) -> Callable[..., Any]:
    def cast(self: WeightSlot, *args: Any, **kwargs: Any) -> Any:
        weight = self.float_weight()
        result = getattr(weight, name)(*args, **kwargs)
        return self if result is weight else result

    return cast


for _name in _OPERATORS:
    setattr(WeightSlot, _name, _operator(_name))
for _name in _CASTS:
    setattr(WeightSlot, _name, _cast(_name))
