"""`Experts`, a module where a stack of experts' matrices stood, and `ExpertWeight`, what code that reads the stack gets: a product with
one runs the module; whatever else reads it gets float values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..torch_private import DisableTorchFunctionSubclass, make_wrapper_subclass, tree_map
from .slot import WeightSlot


class Experts(WeightSlot):
    """Stands where a parameter `[experts, out, in]`, or `transposed` `[experts, in, out]`, stood in a module.

    The module's own code keeps reading it: `F.linear(x, self.weight[i])` and `x @ self.weight[i]` run `forward(x, i)`, and any
    other function gets the float values. See `ExpertWeight`.

    Attributes:
        dtype: of the parameter; it follows `model.to(dtype)`.
    """

    transposed: bool
    dtype: torch.dtype
    requires_grad = False
    _is_hf_initialized = True  # Transformers would draw random numbers into what it takes for a parameter

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Experts, outputs and inputs."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Of the stored values."""
        raise NotImplementedError

    @property
    def shape(self) -> torch.Size:
        """As the parameter's."""
        experts, rows, columns = self.sizes
        return torch.Size((experts, columns, rows) if self.transposed else (experts, rows, columns))

    def weight_of(self, members: int | Sequence[int]) -> ExpertWeight:
        """What stands for some of the experts, or for one."""
        return ExpertWeight(self, members, False, self.dtype)

    def float_values(self, members: int | Sequence[int]) -> Tensor:
        """Float values of some experts, or of one, with the parameter's axes."""
        raise NotImplementedError

    def _apply(self, fn: Any, recurse: bool = True) -> Experts:
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return super()._apply(fn, recurse)

    def float_weight(self) -> Tensor:
        """See `WeightSlot`. Values are made when they are asked for."""
        return self.weight_of(range(self.sizes[0]))

    def __len__(self) -> int:
        return self.sizes[0]

    def __getitem__(self, index: Any) -> Any:
        return self.float_weight()[index]

    def extra_repr(self) -> str:
        """What `print` shows."""
        experts, rows, columns = self.sizes
        return f"experts={experts}, in_features={columns}, out_features={rows}"


class ExpertWeight(Tensor):
    """A stack `[experts, a, b]`, some of its experts, or one expert's matrix `[a, b]`, whose values are made when they are asked for.

    Args:
        experts: the module that computes.
        members: numbers of the experts of a stack; the number of the one expert of a matrix.
        flipped: whether the last two axes are exchanged, compared with the parameter.
        dtype: of the values.
    """

    experts: Experts
    members: int | Sequence[int]
    flipped: bool

    @staticmethod
    def __new__(cls, experts: Experts, members: int | Sequence[int], flipped: bool, dtype: torch.dtype) -> ExpertWeight:
        """See the class."""
        shape = experts.shape[:0:-1] if flipped else experts.shape[1:]
        size = shape if isinstance(members, int) else (len(members), *shape)
        self = make_wrapper_subclass(cls, size, dtype=dtype, device=experts.device)
        self.experts = experts
        self.members = members
        self.flipped = flipped
        return self

    @property
    def multiplies_rows(self) -> bool:
        """Whether the axes are `[in, out]`, as `x @ weight` takes them, and not `[out, in]`, as `F.linear` does."""
        return self.experts.transposed != self.flipped

    def values(self) -> Tensor:
        """A plain float tensor."""
        values = self.experts.float_values(self.members)
        return (values.mT if self.flipped else values).to(self.dtype)

    def with_members(self, members: int | Sequence[int]) -> ExpertWeight:
        """Other experts of the same stack."""
        return ExpertWeight(self.experts, members, self.flipped, self.dtype)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A product runs `experts`; an index or a transpose stays a weight; anything else gets the values."""
        kwargs = kwargs or {}
        if func in _ABOUT:
            with DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        known = _KNOWN.get(func)
        if known is not None:
            result = known(*args, **kwargs)
            if result is not None:
                return result
        args, kwargs = tree_map(_plain, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Below torch's functions too, only values are known."""
        args, kwargs = tree_map(_plain, (args, kwargs or {}))
        return func(*args, **kwargs)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        with DisableTorchFunctionSubclass():
            return f"ExpertWeight(shape={tuple(self.shape)}, members={self.members!r})"


def _plain(value: Any) -> Any:
    return value.values() if isinstance(value, ExpertWeight) else value


def _item(weight: Any, index: Any) -> Tensor | None:
    """One expert, or some, of a stack."""
    if not isinstance(weight, ExpertWeight) or isinstance(weight.members, int):
        return None
    if isinstance(index, slice):
        return weight.with_members(weight.members[index])
    if isinstance(index, Tensor):
        if index.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8) or index.dim() > 1:
            return None
        if index.dim() == 1 and index.dtype != torch.uint8:
            return weight.with_members([weight.members[i] for i in index.tolist()])
    if isinstance(index, (bool, tuple, list)) or index is None or index is Ellipsis:
        return None
    return weight.with_members(weight.members[operator.index(index)])


def _select(weight: Any, dim: Any, index: Any) -> Tensor | None:
    return _item(weight, index) if dim in (0, -3) else None


def _transpose(weight: Any, first: Any = 0, second: Any = 1) -> Tensor | None:
    if not isinstance(weight, ExpertWeight) or not isinstance(first, int) or not isinstance(second, int):
        return None
    axes = weight.dim()
    if {first % axes, second % axes} != {axes - 2, axes - 1}:
        return None
    return ExpertWeight(weight.experts, weight.members, not weight.flipped, weight.dtype)


def _matrix_transpose(weight: Any) -> Tensor | None:
    return _transpose(weight) if isinstance(weight, ExpertWeight) and weight.dim() == 2 else None


def _last_transpose(weight: Any) -> Tensor | None:
    return _transpose(weight, -2, -1)


def _same(weight: Any) -> Tensor | None:
    return weight if isinstance(weight, ExpertWeight) else None


def _float(weight: Any) -> Tensor | None:
    return _to(weight, torch.float32)


def _to(weight: Any, dtype: Any = None, *rest: Any, **kwargs: Any) -> Tensor | None:
    dtype = kwargs.pop("dtype", dtype)
    if not isinstance(weight, ExpertWeight) or rest or kwargs or not isinstance(dtype, torch.dtype):
        return None
    return ExpertWeight(weight.experts, weight.members, weight.flipped, dtype) if dtype.is_floating_point else None


def _linear(input: Any, weight: Any, bias: Any = None) -> Tensor | None:
    if not isinstance(weight, ExpertWeight) or isinstance(input, ExpertWeight):
        return None
    if not isinstance(weight.members, int) or weight.multiplies_rows:
        return None
    return weight.experts(input, weight.members, bias)


def _matmul(input: Any, other: Any = None, **kwargs: Any) -> Tensor | None:
    """`[..., in]` by a matrix, or `[experts, rows, in]` by a stack."""
    other = kwargs.pop("mat2", other)
    if kwargs or not isinstance(other, ExpertWeight) or isinstance(input, ExpertWeight) or not other.multiplies_rows:
        return None
    if isinstance(other.members, int):
        return other.experts(input, other.members)
    if input.dim() != 3 or len(input) != len(other.members):
        return None
    return torch.stack([other.experts(x, member) for x, member in zip(input, other.members, strict=True)])


_KNOWN: dict[Any, Callable[..., Tensor | None]] = {
    Tensor.__getitem__: _item,
    **dict.fromkeys([torch.select, Tensor.select, torch.index_select, Tensor.index_select], _select),
    **dict.fromkeys([torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes], _transpose),
    **dict.fromkeys([torch.t, Tensor.t, Tensor.T.__get__], _matrix_transpose),  # type: ignore[attr-defined]
    Tensor.mT.__get__: _last_transpose,  # type: ignore[attr-defined]
    **dict.fromkeys([Tensor.contiguous, Tensor.detach, torch.detach], _same),
    Tensor.float: _float,
    Tensor.to: _to,
    F.linear: _linear,
    **dict.fromkeys([torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm], _matmul),
    **dict.fromkeys([torch.bmm, Tensor.bmm], _matmul),
}
"""What is done without values; None means that it is not this time."""

_ABOUT = frozenset(
    {Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point, torch.is_floating_point, Tensor.stride}
    | {getattr(Tensor, n).__get__ for n in ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_meta", "is_cuda")}
)  # fmt: skip
"""What is known of a weight without its values."""
