"""What the INT8 modules share: tensors keep their dtype, whatever the model is cast to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import numerics
from ..operators.onnx import refuse_onnx
from .changes import Changes

_RECURRENT = r"(_[ih]h(_l\d+(_reverse)?)?)?"
"""What torch's recurrent layers append to `weight` and `bias`."""

QPARAMS = re.compile(rf"(weight{_RECURRENT}|input\d*|output|query|key|value)_(scale|zero_point)")
"""Names of the quantization parameters that INT8 modules store."""

WEIGHTS = re.compile(rf"(weight|bias){_RECURRENT}")
"""Names of the weights and biases that INT8 modules store."""


def as_float(x: Tensor) -> Tensor:
    """In float32; itself where it is, so that a constant stays one in a captured graph."""
    return x if x.dtype == torch.float32 else x.to(torch.float32)


class KeepDtype(nn.Module):
    """`.to(dtype)`, `.half()` and the like move its tensors but never change their dtype: a scale in half precision would be
    another scale."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KeepDtype:
        def keep_dtype(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        Changes.note()
        return super()._apply(keep_dtype, recurse)


class Int8Module(KeepDtype):
    """Base of the INT8 modules."""

    _is_hf_initialized = True
    """Transformers would draw random numbers into what it takes for a float weight."""

    @property
    def products_per_row(self) -> int | None:
        """Multiply-adds of the weight for one row of the input, or one position of an image; None where there is no weight."""
        return None

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:
        """What torch calls in place of `forward` in `torch.jit.trace`, through which one exporter to ONNX goes."""
        refuse_onnx()
        return super()._slow_forward(*args, **kwargs)

    def finish_loading(self) -> None:
        """Build what is not stored, once the stored tensors are in place."""

    def _qparam_buffers(self, names: tuple[str, ...], static: bool) -> None:
        """Scalar buffers, a zero point int32 and a scale float32; None when dynamic."""
        for name in names:
            dtype = torch.int32 if name.endswith("zero_point") else torch.float32
            self.register_buffer(name, torch.empty((), dtype=dtype) if static else None)

    def _set_input_range(self, limits: tuple[float, float] | None, bits: int) -> None:
        """The scale and zero point of the input by its smallest and largest value; None leaves it dynamic."""
        if limits is not None:
            scale, zero_point = numerics.choose_affine_qparams(*limits, bits)
            self._buffers["input_scale"] = torch.tensor(scale)
            self._buffers["input_zero_point"] = torch.tensor(zero_point, dtype=torch.int32)
