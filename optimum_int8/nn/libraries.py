"""Which library a module comes from."""

from __future__ import annotations

from torch import nn


def is_sentence_transformers(module: nn.Module) -> bool:
    """Whether a module is of Sentence Transformers, also where that is not installed."""
    return any(cls.__module__.split(".")[0] == "sentence_transformers" for cls in type(module).__mro__)
