"""How often each module multiplies in one call: for every token, or every position of a convolution's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Int8Conv

_CONVS = (Int8Conv, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def count_rows(model: nn.Module, example_input: Any) -> dict[str, int]:
    """By name of each module with a weight: rows of what it gave in one call, all its calls together.

    Args:
        example_input: a mapping of keyword arguments, a tuple of positional ones, or one tensor.
    """
    rows: Counter[str] = Counter()

    def hook(name: str) -> Any:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim():
                axis = output.dim() - 1 - len(module.kernel_size) if isinstance(module, _CONVS) else -1  # type: ignore
                rows[name] += output.numel() // max(output.shape[axis], 1)

        return count

    leaves = {
        n: m for n, m in model.named_modules() if next(m.parameters(False), next(m.buffers(False), None)) is not None
    }
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves.items()]
    try:
        with torch.no_grad():
            if isinstance(example_input, Mapping):
                model(**example_input)
            else:
                model(*example_input) if isinstance(example_input, (tuple, list)) else model(example_input)
    finally:
        for handle in handles:
            handle.remove()
    return dict(rows)
