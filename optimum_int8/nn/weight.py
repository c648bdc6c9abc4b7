"""The weight of an INT8 module as the code around it reads it: the float matrix, computed when its values are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import numerics
from ..errors import QuantizationError
from .base import Int8Module
from .changes import Changes
from .dequantized import DequantizedWeight, initializing, is_traced, not_writable

PROBE = "float_probe"
"""Name of an empty parameter of each INT8 module with a weight, never stored: `next(model.parameters()).dtype` finds one."""


class FloatDtype(Int8Module):
    """An INT8 module that reads as one of `dtype`, which follows `.to(dtype)`."""

    dtype: torch.dtype

    def _show_dtype(self) -> None:
        """Let `next(model.parameters())` find a parameter of `dtype`."""
        self._parameters[PROBE] = _probe(torch.empty(0, dtype=self.dtype, device="cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FloatDtype:
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

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        probe = self._parameters.pop(PROBE, None)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if probe is not None:
            self._parameters[PROBE] = probe


class Int8Weighted(FloatDtype):
    """An INT8 module with a weight.

    To whoever reads it, it is its float module: `weight` has the float weight's shape, layout and dtype, and so has `bias`. `dtype` is
    that of the float weight and follows `.to(dtype)`. `state_dict` holds INT8, under the name `weight` too.

    Until `finish_loading` the stored int8 tensor is the buffer `weight`, as a loader expects.
    """

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
        if stored is not None and not initializing.get():
            return stored
        if is_traced():
            return self.dequantize()
        storage = self.int8_storage() if stored is None else stored
        shape = self.float_shape()
        return DequantizedWeight(self.dequantize, storage.data_ptr, shape, storage, self.dtype, self.rescale)

    @weight.setter
    def weight(self, value: Any) -> None:
        raise not_writable("this assignment")

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refuses a float weight: nothing would read it."""
        if name == "weight":
            raise not_writable(f"registering the parameter {name!r}")
        super().register_parameter(name, param)

    def _hold(self, stored: Tensor) -> None:
        """Make an int8 tensor the buffer `weight`, which hides the float one until `finish_loading`."""
        self._buffers["weight"] = stored
        self._show_dtype()

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.quantized_weight()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        self.release()
        super()._load_from_state_dict(state_dict, prefix, *args)
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
        raise not_writable("this assignment")

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
    rows = min(len(q), len(weight))
    columns = min(q.shape[1], weight.shape[1])
    result = q.new_empty(weight.shape)
    scales = scale.new_empty(len(weight))
    result[:rows, :columns] = q[:rows, :columns]
    scales[:rows] = scale[:rows]
    result[:rows, columns:], _ = numerics.quantize_weight(weight[:rows, columns:], scale=scale[:rows])
    if len(weight) > rows:
        result[rows:], scales[rows:] = numerics.quantize_weight(weight[rows:])
    return result, scales
