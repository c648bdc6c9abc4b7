"""What of a model computes in INT8 and what does not, by multiply-adds and by bytes: every module and parameter with weights counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..nn import Int8Embedding, Int8Experts, Int8Module
from ..sites.float_modules import TABLE, float_kind, holds_bare_parameters
from .rows import Counted

_MULTIPLYING = (nn.Linear, Conv1D, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear,
                nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)  # fmt: skip
"""torch's layers in which each weight is one multiply-add per row: per token, per step, per position."""

_TOP_K = ("num_experts_per_tok", "moe_top_k", "num_experts_per_token", "top_k", "moe_topk")
"""What configurations call the experts that a token goes to."""


@dataclass
class Part:
    """One module with weights, or one parameter of a module that is no layer.

    Attributes:
        path: qualified name.
        cls: its class; `"Parameter"`.
        int8: whether it is INT8.
        share: of the model's multiply-adds, see `inspect`.
        bytes: of its tensors, as stored; shared ones count once.
        reason: why it is FP32; empty when it is INT8.
    """

    path: str
    cls: str
    int8: bool
    share: float
    bytes: int
    reason: str = ""


def account(model: nn.Module, reasons: Mapping[str, str], counted: Counted | None) -> list[Part]:
    """The parts of a model with weights of two axes and more, INT8 or not; norms and biases are in `float_bytes` alone.

    Args:
        reasons: of what stayed FP32, as a checkpoint says them.
        counted: of one call; None counts one row everywhere.
    """
    seen: set[tuple[int, int]] = set()
    found = [
        part for path, module in model.named_modules() for part in _parts(model, path, module, reasons, counted, seen)
    ]
    total = sum(part.share for part in found) or 1
    for part in found:
        part.share /= total
    return found


def float_bytes(model: nn.Module) -> int:
    """Bytes of all tensors outside of INT8 modules that a checkpoint stores, norms and biases included; shared ones once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for module in model.modules():
        if not isinstance(module, Int8Module):
            stored = [b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set]
            total += sum(_new_bytes(t, seen) for t in (*module._parameters.values(), *stored) if t is not None)
    return total


def _parts(
    model: nn.Module,
    path: str,
    module: nn.Module,
    reasons: Mapping[str, str],
    counted: Counted | None,
    seen: set[tuple[int, int]],
) -> Iterator[Part]:
    name = type(module).__name__
    if isinstance(module, Int8Module):
        stored = _int8_bytes(module, seen)
        if module.products_per_row is not None:
            rows = _int8_rows(model, path, module) if counted is None else counted.rows.get(path, 0)
            yield Part(path, name, True, float(rows * module.products_per_row), stored)
        return
    matrices = {n: p for n, p in module._parameters.items() if p is not None and p.dim() > 1}
    if not matrices:
        return
    if isinstance(module, (*_MULTIPLYING, nn.Embedding, nn.EmbeddingBag)) or not holds_bare_parameters(module):
        work = sum(p.numel() for p in matrices.values()) if isinstance(module, _MULTIPLYING) else 0
        rows = 1 if counted is None else counted.rows.get(path, 0)
        stored = sum(_new_bytes(p, seen) for p in module._parameters.values() if p is not None)
        why = _reason(path, reasons) or float_kind(module) or f"a {name} has no INT8 form"
        yield Part(path, name, False, float(work * rows), stored, why)
        return
    for key, parameter in matrices.items():
        full = f"{path}.{key}" if path else key
        work = parameter.numel() if len(parameter) > 1 else 0  # a single row is a token or a table of positions
        if counted is not None:
            work = counted.products.get(full, 0)
        why = _reason(full, reasons) or _reason(path, reasons) or TABLE
        yield Part(full, "Parameter", False, float(work), _new_bytes(parameter, seen), why)


def _int8_rows(model: nn.Module, path: str, module: Int8Module) -> int:
    """Rows that a token is to a module: one, or one for each expert that it goes to."""
    return _active(model, path, len(module)) if isinstance(module, Int8Experts) else 1


def _active(model: nn.Module, path: str, experts: int) -> int:
    """How many of the experts a token goes to, as far as the modules around them or their configurations say; all, if they do not."""
    while path:
        path = path.rpartition(".")[0]
        owner = model.get_submodule(path)
        for source in (owner, getattr(owner, "config", None)):
            found = [getattr(source, name, None) for name in _TOP_K]
            known = [value for value in found if type(value) is int and 0 < value <= experts]
            if known:
                return known[0]
    return experts


def _int8_bytes(module: Int8Module, seen: set[tuple[int, int]]) -> int:
    tied = getattr(module, "_tied", None)
    state = {n: t for n, t in module.state_dict().items() if "." not in n}
    if tied:
        return sum(t.nbytes for n, t in state.items() if n not in ("weight", "weight_scale"))
    if isinstance(module, Int8Embedding):  # tables are tied by holding the same tensors
        return sum(_new_bytes(t, seen) for t in module._buffers.values() if t is not None)
    return sum(t.nbytes for t in state.values())


def _new_bytes(tensor: Tensor, seen: set[tuple[int, int]]) -> int:
    key = (tensor.data_ptr() or id(tensor), tensor.numel())
    if key in seen:
        return 0
    seen.add(key)
    return tensor.nbytes


def _reason(path: str, reasons: Mapping[str, str]) -> str:
    """What a checkpoint says of a module or parameter, of the function that reads it, or of the module that contains it."""
    if path in reasons:
        return reasons[path]
    below = next((reason for name, reason in reasons.items() if name.startswith(f"{path}.") and path), "")
    if below:
        return below
    parents = [path[:i] for i, letter in enumerate(path) if letter == "."]
    return next((reasons[p] for p in reversed(parents) if reasons.get(p, "").startswith("excluded")), "")
