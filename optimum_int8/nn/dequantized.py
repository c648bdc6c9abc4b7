"""The float matrix that an INT8 weight stands for, as a tensor whose values are computed when they are asked for."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from ..errors import QuantizationError
from ..torch_private import is_recorded, make_wrapper_subclass, no_torch_function, tree_map

initializing: ContextVar[bool] = ContextVar("initializing", default=False)


@contextlib.contextmanager
def keeping_weights() -> Iterator[None]:
    """Within, INT8 weights read as float ones even while they are loaded, and what is written to them is dropped: Transformers draws
    random numbers into the weights it believes to be missing."""
    token = initializing.set(True)
    try:
        yield
    finally:
        initializing.reset(token)


class DequantizedWeight(Tensor):
    """A float weight whose `dtype`, `shape` and `device` cost microseconds, and whose values are computed at the first operator that
    reads them.

    It is built again at each access. An operator that would write to it, or to a view of it, raises `QuantizationError`: the values live in
    INT8. Multiplying and dividing by a power of two in place is exact, and goes to the scales.
    """

    __torch_function__ = no_torch_function  # type: ignore[assignment]

    _is_hf_initialized = True
    """Transformers draws no random numbers into what says so."""

    _compute: Callable[[], Tensor]
    _address: Callable[[], int]
    _rescale: Callable[[float], bool] | None
    _computed: Tensor | None

    @staticmethod
    def __new__(
        cls,
        compute: Callable[[], Tensor],
        address: Callable[[], int],
        shape: tuple[int, ...],
        like: Tensor,
        dtype: Any,
        rescale: Callable[[float], bool] | None = None,
    ) -> DequantizedWeight:
        """See the class.

        Args:
            compute: gives the values.
            address: that of the INT8 values.
            like: a tensor on the device.
            rescale: multiplies the stored weight by a power of two, or says that it cannot.
        """
        new = make_wrapper_subclass(cls, shape, dtype=dtype, device=like.device)
        new._compute = compute
        new._address = address
        new._rescale = rescale
        new._computed = None
        return new

    def __init__(self, *args: Any) -> None:
        pass

    def dense(self) -> Tensor:
        """The values, as an ordinary tensor."""
        if self._computed is None:
            self._computed = self._compute()
        return self._computed

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func is torch.ops.aten.detach.default or func is torch.ops.aten.alias.default:
            return copy.copy(args[0])
        arguments = func._schema.arguments
        given = [*zip(arguments, args, strict=False), *((a, (kwargs or {}).get(a.name)) for a in arguments)]
        if any(a.alias_info is not None and a.alias_info.is_write and isinstance(x, cls) for a, x in given):
            if initializing.get() or (isinstance(args[0], cls) and args[0]._is_rescaled(func, args[1:])):
                return args[0]
            raise not_writable(func.__name__)
        result = func(*tree_map(_dense, args), **tree_map(_dense, kwargs or {}))
        is_view = any(value.alias_info is not None for value in func._schema.returns)
        return tree_map(_view, result) if is_view else result

    def _is_rescaled(self, func: Any, factors: tuple[Any, ...]) -> bool:
        """Whether this was `mul_` or `div_` with a power of two, which the module's scales have taken exactly (RWKV)."""
        operation = func.overloadpacket
        if operation not in (torch.ops.aten.mul_, torch.ops.aten.div_) or len(factors) != 1 or self._rescale is None:
            return False
        value = factors[0].item() if isinstance(factors[0], Tensor) and factors[0].dim() == 0 else factors[0]
        if not isinstance(value, int | float) or not value > 0 or math.frexp(value)[0] != 0.5:
            return False
        if not self._rescale(value if operation is torch.ops.aten.mul_ else 1.0 / value):
            return False
        self._computed = None
        return True

    def requires_grad_(self, requires_grad: bool = True) -> DequantizedWeight:
        """INT8 weights do not learn."""
        if requires_grad:
            raise QuantizationError(
                "an INT8 weight cannot require a gradient; clone() it first, or train the FP32 model"
            )
        return self

    def data_ptr(self) -> int:
        """Of the INT8 values: equal for tied weights."""
        return self._address()

    def numpy(self, *, force: bool = False) -> Any:
        """See `torch.Tensor.numpy`."""
        return self.dense().numpy(force=force)

    def tolist(self) -> Any:
        """See `torch.Tensor.tolist`."""
        return self.dense().tolist()

    def __array__(self, dtype: Any = None) -> Any:
        return self.dense().__array__(dtype) if dtype is not None else self.dense().__array__()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return repr(self.dense())

    def __copy__(self) -> DequantizedWeight:
        new = DequantizedWeight(self._compute, self._address, tuple(self.shape), self, self.dtype, self._rescale)
        new._computed = self._computed
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.dense().clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.dense().__reduce_ex__(protocol)


def _dense(value: Any) -> Any:
    return value.dense() if isinstance(value, DequantizedWeight) else value


class _View(DequantizedWeight):
    """A part of a weight, which cannot be written to either."""

    @staticmethod
    def __new__(cls, values: Tensor) -> _View:
        """See the class."""
        new: _View = make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=values.device
        )
        new._computed = values
        new._rescale = None
        return new

    def data_ptr(self) -> int:
        """Of the float values."""
        return self.dense().data_ptr()

    def __copy__(self) -> _View:
        return _View(self.dense())


def _view(value: Any) -> Any:
    return _View(value) if type(value) is Tensor else value


def not_writable(operation: str) -> QuantizationError:
    """The error of an operation that would write to an INT8 weight."""
    return QuantizationError(
        f"{operation} would write to the weight of an INT8 module, which holds no float values; change the FP32 model and "
        "quantize it again, or load INT8 tensors with load_state_dict"
    )


def is_traced() -> bool:
    """Whether something records the operators of this thread: dynamo, `torch.export`, `torch.jit.trace`, or a dispatch mode."""
    return torch.compiler.is_compiling() or is_recorded()
