"""How often each module multiplies in one call: for every token, or every position of a convolution's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..nn import Int8Conv, Int8Conv3d
from ..sites.float_modules import holds_bare_parameters
from ..torch_private import TorchDispatchMode

_CONVS = (Int8Conv, Int8Conv3d, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass
class Counted:
    """What one call did.

    Attributes:
        rows: by name of each module with a weight, rows of what it gave, all its calls together; of a transposed convolution, positions of
            what it took.
        products: by name of each parameter of a module that is no layer, multiply-adds of the products that read it.
    """

    rows: dict[str, int]
    products: dict[str, int]


def count_rows(model: nn.Module, example_input: Any) -> Counted:
    """See `Counted`.

    Args:
        example_input: a mapping of keyword arguments, a tuple of positional ones, or one tensor.
    """
    rows: Counter[str] = Counter()

    def hook(name: str) -> Any:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            rows[name] += _rows(module, inputs, output)

        return count

    leaves = {
        n: m for n, m in model.named_modules() if next(m.parameters(False), next(m.buffers(False), None)) is not None
    }
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves.items()]
    products = _Products(model)
    try:
        with torch.no_grad(), products:
            if isinstance(example_input, Mapping):
                model(**example_input)
            else:
                model(*example_input) if isinstance(example_input, (tuple, list)) else model(example_input)
    finally:
        for handle in handles:
            handle.remove()
    return Counted(dict(rows), dict(products.found))


def _rows(module: nn.Module, inputs: Any, output: Any) -> int:
    if isinstance(module, _TRANSPOSED) and inputs and isinstance(inputs[0], Tensor):
        output = inputs[0]
        axis = inputs[0].dim() - 1 - len(module.kernel_size)
    else:
        axis = output.dim() - 1 - len(module.kernel_size) if isinstance(module, _CONVS) else -1
    if isinstance(output, (tuple, list)) and len(output):
        output = output.data if isinstance(output, PackedSequence) else output[0]
    if isinstance(output, PackedSequence):
        output = output.data
    if not isinstance(output, Tensor) or not output.dim():
        return 0
    return output.numel() // max(output.shape[axis], 1)


class _Products(TorchDispatchMode):
    """Counts the multiply-adds of products that read bare parameters, by the memory that they read."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.names: dict[int, str] = {}
        for path, module in model.named_modules():
            if holds_bare_parameters(module):
                for name, parameter in module._parameters.items():
                    if parameter is not None and parameter.dim() > 1:
                        self.names[parameter.untyped_storage().data_ptr()] = f"{path}.{name}" if path else name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        first = _FIRST.get(func)
        if first is not None and self.names:
            factors = args[first : first + 2]
            for factor in factors:
                if type(factor) not in (Tensor, nn.Parameter):
                    continue
                name = self.names.get(factor.untyped_storage().data_ptr())
                if name is not None:
                    inner = args[1][0].numel() if func in _CONVOLUTIONS else factors[0].shape[-1]
                    self.found[name] += result.numel() * inner
        return result


_aten = torch.ops.aten
_CONVOLUTIONS = (_aten.convolution.default,)
_FIRST = {
    **dict.fromkeys(
        [_aten.mm.default, _aten.bmm.default, _aten.mv.default, _aten.dot.default, _aten.linear.default], 0
    ),
    **dict.fromkeys([_aten.convolution.default, _aten._grouped_mm.default, _aten.matmul.default], 0),
    **dict.fromkeys([_aten.addmm.default, _aten.baddbmm.default], 1),
}
"""Products, and the place of the first of their two factors."""
