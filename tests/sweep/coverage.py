"""The share of multiply-adds that run in INT8.

Counted are the products of matrices and the convolutions of one call, with weights or without (linears, experts, convolutions, scores and
values of attention); element-wise arithmetic, norms, recurrences that multiply element by element, and table look-ups are not. The FP32
model gives the whole; what the INT8 model, unfused, still multiplies in float is what is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import optimum_int8.operators  # noqa: F401  registers the operators
from optimum_int8 import inspect
from tests.sweep.models import Batch, run

aten = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Scores, and values by them: two operations for each multiply-add, as torch counts."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[2] * (width + value[3])


def _grouped(a: Any, b: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Rows of `a` by the matrix of their group."""
    return 2 * a[0] * a[1] * b[-1]


WITHOUT_WEIGHT = "products of activations in its own code, no weight"
"""Attention that does not go through the interface of Transformers, recurrences, relative positions."""

COUNTED: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.optimum_int8.float_attention: _attention,
    aten._grouped_mm: _grouped,
}
"""What torch's counter does not know."""


def coverage(model: nn.Module, int8: nn.Module, batch: Batch) -> dict[str, Any]:
    """`coverage`, from 0 to 1, `float`: what stays float by module, the largest five, as shares of all, and `why`: their reasons."""
    whole, _ = _count(model, batch)
    left, places = _count(int8, batch)
    if not whole:
        return {"coverage": None}
    top = sorted(((count / whole, name) for name, count in places.items() if count > 0.005 * whole), reverse=True)[:5]
    reasons = inspect(int8).fp32
    return {
        "coverage": round(1 - left / whole, 4),
        "float": {name: round(share, 4) for share, name in top},
        "why": {name: _why(name, int8, reasons) for _, name in top},
    }


def _why(name: str, int8: nn.Module, reasons: Mapping[str, str]) -> str:
    """The reason of a module or of a parameter of its own."""
    if name in reasons:
        return reasons[name]
    parameters = {f"{name}.{parameter}" for parameter, _ in int8.get_submodule(name).named_parameters(recurse=False)}
    of_them = (
        reason for path, reason in reasons.items() if path in parameters or path.rpartition(".")[0] in parameters
    )
    return next(of_them, WITHOUT_WEIGHT)


def _count(model: nn.Module, batch: Batch) -> tuple[int, dict[str, int]]:
    """Of one call: all operations, and those of each module itself, without its children's."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # the counter follows gradients
    try:
        with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
            run(model, batch)
    except AssertionError:  # it follows tensors that the model itself makes with gradients, and expects these to be on
        with torch.enable_grad(), FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
            model(**batch)
    prefix = f"{type(model).__name__}."
    totals = {name.removeprefix(prefix): sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    own = dict(totals)
    for name, count in totals.items():
        parent = name.rpartition(".")[0]
        while parent and parent not in totals:  # a list of modules is not called, and not counted
            parent = parent.rpartition(".")[0]
        if parent:
            own[parent] -= count
    root = {type(model).__name__, "Global"}
    return int(counter.get_total_flops()), {
        name: count for name, count in own.items() if count > 0 and name not in root
    }
