"""The weight of an INT8 module as the code around it reads it: the float matrix, computed when its values are asked for."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .. import numerics
from ..errors import QuantizationError
from .base import Int8Module
from .changes import Changes

PROBE = "float_probe"
"""Name of an empty parameter of each INT8 module with a weight, never stored: `next(model.parameters()).dtype` finds one."""

_initializing: ContextVar[bool] = ContextVar("initializing", default=False)


@contextlib.contextmanager
def keeping_weights() -> Iterator[None]:
    """Within, INT8 weights read as float ones even while they are loaded, and what is written to them is dropped: Transformers draws
    random numbers into the weights it believes to be missing."""
    token = _initializing.set(True)
    try:
        yield
    finally:
        _initializing.reset(token)


class DequantizedWeight(Tensor):
    """A float weight whose `dtype`, `shape` and `device` cost microseconds, and whose values are computed at the first operator that
    reads them.

    It is built again at each access. An operator that would write to it, or to a view of it, raises `QuantizationError`: the values live in
    INT8. Multiplying and dividing by a power of two in place is exact, and goes to the scales.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    _is_hf_initialized = True
    """Transformers draws no random numbers into what says so."""

    _compute: Callable[[], Tensor]
    _address: Callable[[], int]
    _rescale: Callable[[float], bool] | None
    _values: Tensor | None

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
        new = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=like.device)  # type: ignore[attr-defined]
        new._compute = compute
        new._address = address
        new._rescale = rescale
        new._values = None
        return new

    def __init__(self, *args: Any) -> None:
        pass

    def dense(self) -> Tensor:
        """The values, as an ordinary tensor."""
        if self._values is None:
            self._values = self._compute()
        return self._values

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default or func is torch.ops.aten.alias.default:
            return copy.copy(args[0])
        arguments = func._schema.arguments
        given = [*zip(arguments, args, strict=False), *((a, (kwargs or {}).get(a.name)) for a in arguments)]
        if any(a.alias_info is not None and a.alias_info.is_write and isinstance(x, cls) for a, x in given):
            if _initializing.get() or (isinstance(args[0], cls) and args[0]._is_rescaled(func, args[1:])):
                return args[0]
            raise _not_writable(func.__name__)
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
        self._values = None
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

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return repr(self.dense())

    def __copy__(self) -> DequantizedWeight:
        new = DequantizedWeight(self._compute, self._address, tuple(self.shape), self, self.dtype, self._rescale)
        new._values = self._values
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
        new: _View = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=values.device
        )
        new._values = values
        new._rescale = None
        return new

    def data_ptr(self) -> int:
        """Of the float values."""
        return self.dense().data_ptr()

    def __copy__(self) -> _View:
        return _View(self.dense())


def _view(value: Any) -> Any:
    return _View(value) if type(value) is Tensor else value


def _not_writable(operation: str) -> QuantizationError:
    return QuantizationError(
        f"{operation} would write to the weight of an INT8 module, which holds no float values; change the FP32 model and "
        "quantize it again, or load INT8 tensors with load_state_dict"
    )


def is_traced() -> bool:
    """Whether something records the operators of this thread: dynamo, `torch.export`, `torch.jit.trace`, or a dispatch mode."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack()
    )


class Int8Weighted(Int8Module):
    """An INT8 module with a weight.

    To whoever reads it, it is its float module: `weight` has the float weight's shape, layout and dtype, and so has `bias`. `dtype` is
    that of the float weight and follows `.to(dtype)`. `state_dict` holds INT8, under the name `weight` too.

    Until `finish_loading` the stored int8 tensor is the buffer `weight`, as a loader expects.
    """

    dtype: torch.dtype
    weight_scale: Tensor

    def quantized_weight(self) -> Tensor:
        """The weight as it is stored: int8, the output channels or rows first, a last axis of size 1."""
        raise NotImplementedError

    def float_shape(self) -> tuple[int, ...]:
        """Shape of the float weight."""
        raise NotImplementedError

    def int8_storage(self) -> Tensor:
        """The tensor that holds the INT8 values."""
        raise NotImplementedError

    def dequantize(self) -> Tensor:
        """The float weight that the INT8 values stand for."""
        weight = self.quantized_weight().squeeze(-1)
        return (weight.to(torch.float32) * self.weight_scale.view(-1, *[1] * (weight.dim() - 1))).to(self.dtype)

    def rescale(self, factor: float) -> bool:
        """Multiply the weight by a power of two, exactly, or leave it as it is and say so.

        Returns:
            False where a scale would leave the range of float32, or where another module may share it.
        """
        return False

    @property
    def weight(self) -> Tensor:
        """The float weight."""
        stored = self._buffers.get("weight")
        if stored is not None and not _initializing.get():
            return stored
        if is_traced():
            return self.dequantize()
        storage = self.int8_storage() if stored is None else stored
        shape = self.float_shape()
        return DequantizedWeight(self.dequantize, storage.data_ptr, shape, storage, self.dtype, self.rescale)

    @weight.setter
    def weight(self, value: Any) -> None:
        raise _not_writable("this assignment")

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refuses a float weight: nothing would read it."""
        if name == "weight":
            raise _not_writable(f"registering the parameter {name!r}")
        super().register_parameter(name, param)

    def _hold(self, stored: Tensor) -> None:
        """Make an int8 tensor the buffer `weight`, which hides the float one until `finish_loading`."""
        self._buffers["weight"] = stored
        self._parameters[PROBE] = _probe(torch.empty(0, dtype=self.dtype, device="cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Int8Weighted:
        probe = self._parameters.pop(PROBE, None)
        super()._apply(fn, recurse)
        like = fn(torch.empty(0, dtype=self.dtype))
        self.dtype = like.dtype
        if probe is not None:
            self._parameters[PROBE] = _probe(like)
        return self

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.pop(prefix + PROBE, None)
        destination[prefix + "weight"] = self.quantized_weight()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        self.release()
        probe = self._parameters.pop(PROBE, None)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if probe is not None:
            self._parameters[PROBE] = probe
        self.finish_loading()

    def release(self) -> None:
        """The inverse of `finish_loading`."""
        raise NotImplementedError


def _probe(like: Tensor) -> nn.Parameter:
    return nn.Parameter(like.detach(), requires_grad=False)


class Int8Biased(Int8Weighted):
    """An INT8 module with a weight and a bias, which is kept in float32."""

    @property
    def bias(self) -> Tensor | None:
        """As the float module's: in `dtype`, and a parameter, so that it can be assigned to another module. It shares the float32 values."""
        bias = self._buffers["bias"]
        if bias is None:
            return None
        bias = bias if bias.dtype == self.dtype else bias.to(self.dtype)
        if is_traced():
            return bias
        parameter = nn.Parameter(bias, requires_grad=False)
        parameter._is_hf_initialized = True  # type: ignore[attr-defined]  # Transformers draws no random numbers into it
        return parameter

    @bias.setter
    def bias(self, value: Any) -> None:
        raise _not_writable("this assignment")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "bias" and isinstance(value, nn.Parameter):
            self.register_parameter(name, value)  # torch's would first remove the buffer
        else:
            super().__setattr__(name, value)

    def rescale(self, factor: float) -> bool:
        """See `Int8Weighted.rescale`."""
        scale = self.weight_scale * factor
        limits = torch.finfo(torch.float32)
        if not bool(((scale >= limits.tiny) & (scale <= limits.max / 256)).all()):
            return False
        self.weight_scale = scale
        return True

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Takes a parameter as the bias, whose values it shares where they are float32; refuses a weight."""
        if name != "bias":
            super().register_parameter(name, param)
            return
        if param is not None and param.shape != self.weight_scale.shape:
            raise QuantizationError(
                f"a bias of shape {list(param.shape)} was assigned to an INT8 module; expected {list(self.weight_scale.shape)}"
            )
        self._buffers["bias"] = None if param is None else param.detach().to(torch.float32)
        Changes.note()


def resized(q: Tensor, scale: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A quantized matrix with the size of `weight`: what both have stays as it is, what is new gets the values of `weight`.

    Args:
        q, scale: int8 `[rows, columns]`, float32 `[rows]`.
        weight: float `[new_rows, new_columns]`. New columns of rows that were there are rounded with the scales of these.

    Returns:
        int8 `[new_rows, new_columns]` and float32 `[new_rows]`.
    """
    rows, columns = min(len(q), len(weight)), min(q.shape[1], weight.shape[1])
    result, scales = q.new_empty(weight.shape), scale.new_empty(len(weight))
    result[:rows, :columns], scales[:rows] = q[:rows, :columns], scale[:rows]
    result[:rows, columns:], _ = numerics.quantize_weight(weight[:rows, columns:], scale=scale[:rows])
    if len(weight) > rows:
        result[rows:], scales[rows:] = numerics.quantize_weight(weight[rows:])
    return result, scales
