"""Gradients through INT8: straight through the rounding, as those of the float computation on the dequantized weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], reference: Callable[..., Any], *inputs: Any) -> Any:
        ctx.reference = reference
        ctx.save_for_backward(*inputs)
        return compute(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad[2:]
        with torch.enable_grad():
            inputs = [
                x if x is None else x.detach().requires_grad_(need)
                for x, need in zip(ctx.saved_tensors, needed, strict=True)
            ]
            result = ctx.reference(*inputs)
        results = (result,) if isinstance(result, Tensor) else result
        given = [gradient.to(x.dtype) for gradient, x in zip(gradients, results, strict=True)]
        wanted = [x for x, need in zip(inputs, needed, strict=True) if need and x is not None]
        found = iter(torch.autograd.grad(results, wanted, given, allow_unused=True))
        return None, None, *(next(found) if need else None for need in needed)


def wants_gradients(*tensors: Tensor | None) -> bool:
    """Whether autograd watches: the kernels have no derivative."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def straight_through(compute: Callable[..., Any], reference: Callable[..., Any], *inputs: Tensor | None) -> Any:
    """`compute(*inputs)`, a tensor or a tuple of them, whose gradient is that of `reference` at the same inputs, which is run again for it."""
    return _StraightThrough.apply(compute, reference, *inputs)
