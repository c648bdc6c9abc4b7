"""ONNX has no counterpart of our operators: an export says so, and what to do instead."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from ..errors import QuantizationError


def refuse_onnx() -> None:
    """Stop an export to ONNX by either exporter of torch. Called while a model is traced only.

    Raises:
        QuantizationError: `torch.onnx.export` is running.
    """
    exporter = sys.modules.get("torch.onnx")  # torch imports it when it is asked for
    if exporter is not None and exporter.is_in_onnx_export():
        raise QuantizationError(
            "an INT8 model of optimum_int8 cannot be exported to ONNX, which has none of its operators; "
            "optimum_int8.save(model, 'model.pt2', example_input) writes one file that optimum_int8.load runs without the model's source "
            "(for ONNX, export the FP32 model)"
        )


def without_onnx(fake: Callable[..., Any]) -> Callable[..., Any]:
    """A fake implementation of an operator that stops an export to ONNX."""

    @functools.wraps(fake)
    def checked(*args: Any, **kwargs: Any) -> Any:
        refuse_onnx()
        return fake(*args, **kwargs)

    return checked
