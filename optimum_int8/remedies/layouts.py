"""Which functions keep the channels of a tensor apart, and where its channels are afterwards.

A layout is `"rows"` (`[..., channels]`), `"heads"` (`[..., heads, head]`) or `"swapped"` (`[batch, heads, length, head]`); channel
`h * head + d` is head h, element d.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

METADATA = {
    "size", "dim", "ndim", "ndimension", "numel", "nelement", "shape", "dtype", "device", "layout", "stride",
    "storage_offset", "requires_grad", "is_contiguous", "is_floating_point", "is_complex", "is_cuda", "is_cpu",
    "is_meta", "is_mps", "is_xpu", "is_sparse", "is_nested", "is_quantized", "is_inference", "is_leaf", "is_mkldnn",
    "get_device", "element_size", "itemsize", "__len__", "__hash__", "names", "grad_fn",
}  # fmt: skip
"""Attributes and methods that read no value."""

KEEPING = frozenset(["dropout", "contiguous", "to", "type", "float", "clone", "detach", "alias", "relu", "identity"])
"""Functions that keep shape, dtype and the place of each channel, and scale with it (by a positive factor)."""

RESHAPING = frozenset(["view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as"])
PRODUCTS = frozenset(["mul", "multiply", "__mul__", "__rmul__"])


def is_metadata(func: Any) -> bool:
    """Whether a call reads only what kind of tensor it has."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(func.__self__, "__name__", "")
    return name in METADATA


def follow(func: Any, tensor: Tensor, layout: str, channels: int, args: Any, kwargs: Any, output: Any) -> str | None:
    """The layout of `output`, or None where `func` does not keep the `channels` of `tensor` apart."""
    name = getattr(func, "__name__", "")
    if not isinstance(output, Tensor) or output.dtype != tensor.dtype:
        return None
    if name in KEEPING:
        return layout if output.shape == tensor.shape else None
    if name in PRODUCTS:
        return layout if output.shape == tensor.shape and not _is_square(args, kwargs) else None
    if name in RESHAPING:
        return layout if output.shape == tensor.shape else _reshaped(layout, channels, output)
    if name == "__getitem__":
        return layout if layout == "rows" and _keeps_last_axis(args[1], tensor.dim()) else None
    if name in ("transpose", "swapaxes", "permute") and tensor.dim() == 4:
        return _transposed(name, layout, args, kwargs)
    if name in ("scaled_dot_product_attention", "matmul", "bmm"):
        return _attended(name, tensor, layout, args, kwargs, output)
    return None


def _is_square(args: Any, kwargs: Any) -> bool:
    operands = [*args, *kwargs.values()]
    return len(operands) > 1 and operands[0] is operands[1]


def _reshaped(layout: str, channels: int, output: Tensor) -> str | None:
    if layout == "swapped" or output.dim() == 0:
        return None
    if output.shape[-1] == channels:
        return "rows"
    return "heads" if output.dim() > 1 and output.shape[-2] * output.shape[-1] == channels else None


def _keeps_last_axis(index: Any, dims: int) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, (int, slice)) for part in parts):
        return False
    return len(parts) < dims or (len(parts) == dims and parts[-1] == slice(None))


def _transposed(name: str, layout: str, args: Any, kwargs: Any) -> str | None:
    axes = [*args[1:], *kwargs.values()]
    axes = list(axes[0]) if axes and isinstance(axes[0], (tuple, list)) else axes
    axes = [axis % 4 for axis in axes if isinstance(axis, int)]
    swap = axes == [0, 2, 1, 3] if name == "permute" else sorted(axes) == [1, 2]
    return {"heads": "swapped", "swapped": "heads"}.get(layout) if swap else None


def _attended(name: str, tensor: Tensor, layout: str, args: Any, kwargs: Any, output: Tensor) -> str | None:
    """Attention mixes rows, never the channels of its values; they are its third input, or the second factor of a product."""
    place = 2 if name == "scaled_dot_product_attention" else 1
    named = "value" if place == 2 else "other"
    operands = [args[i] if i < len(args) else None for i in range(place + 1)]
    operands[place] = kwargs.get(named, operands[place])
    others = [*operands[:place], kwargs.get("query"), kwargs.get("key"), kwargs.get("input")]
    if layout != "swapped" or operands[place] is not tensor or any(other is tensor for other in others):
        return None
    same = output.dim() == 4 and output.shape[1] == tensor.shape[1] and output.shape[3] == tensor.shape[3]
    return "swapped" if same else None
