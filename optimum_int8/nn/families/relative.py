"""Attention with relative positions that does not go through Transformers' interface: what unpacked modules share, and which there are.

An unpacked module keeps its class as a base. Its content products and softmax are a core of the attention interface, to which relative
positions come as a mask that is added; its products with positions are `Scores`; both are sites.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from torch import nn

from ..core_caller import FLOAT_IMPLEMENTATION, CoreCaller

_FILES = {
    "transformers.models.xlnet.modeling_xlnet.XLNetRelativeAttention": "xlnet",
    "transformers.models.deberta_v2.modeling_deberta_v2.DisentangledSelfAttention": "deberta",
}
"""Class to the file here that unpacks it; imported only where a model has it."""


def can_unpack(module: nn.Module) -> bool:
    """Whether it is one of those; not a subclass, whose code is another."""
    return _class_name(module) in _FILES


def unpack_relative(model: nn.Module, names: Iterable[str] | None = None) -> nn.Module:
    """Unpack the modules named, or all that can be, in place."""
    found = dict(model.named_modules())
    for name in [n for n, m in found.items() if can_unpack(m)] if names is None else names:
        module = found[name]
        file = importlib.import_module(f".{_FILES[_class_name(module)]}", __package__)
        file.unpack(module)
        module.attention = FLOAT_IMPLEMENTATION
    return model


def unpacked(model: nn.Module) -> list[str]:
    """Qualified names of unpacked modules."""
    return [name for name, module in model.named_modules() if isinstance(module, CoreCaller)]


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
