"""What captured graphs were made for, and what a block has to be for them: equal in every process."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from .._version import __version__
from ..nn import Int8Module
from ..operators import REGISTRY
from . import binding

_OWN = ("torch", "optimum_int8")
"""Packages whose versions stand for their sources."""

_SAYS_ITSELF = frozenset({str, int, float, bool, type(None), torch.dtype})


def facts_of(model: PreTrainedModel) -> dict[str, Any] | None:
    """What decides the graphs of a model, besides what each block is: versions, settings, sources. None where a source cannot be read."""
    sources = _sources(model)
    if sources is None:
        return None
    settings = {k: v for k, v in binding.flatten(binding.as_json(model.config)).items() if k != binding.ARCHITECTURES}
    settings["attention"] = str(model.config._attn_implementation)
    schemas = sorted(str(operator.overload._schema) for operator in REGISTRY.values())
    return {
        "optimum_int8": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "model": _name(type(model)),
        "settings": _sum(json.dumps(settings, sort_keys=True)),
        "operators": _sum("\n".join(schemas)),
        "sources": sources,
    }


def _sources(model: nn.Module) -> dict[str, str] | None:
    """By module of Python the sum of its file, for every class below `model` that is not torch's or ours."""
    names = {c.__module__ for cls in {type(m) for m in model.modules()} for c in cls.__mro__}
    found = {}
    for name in sorted(names - {"builtins"}):
        if name.partition(".")[0] in _OWN:
            continue
        file = getattr(sys.modules.get(name), "__file__", None)
        try:
            found[name] = hashlib.sha256(Path(str(file)).read_bytes()).hexdigest()
        except OSError:
            return None
    return found


def text_of(value: Any) -> str:
    """A key or a structure as text: equal for equal ones, in another process too."""
    if type(value) in _SAYS_ITSELF:
        return repr(value)
    if isinstance(value, tuple):
        return f"({','.join([text_of(item) for item in value])})"
    if isinstance(value, list):
        return f"[{','.join([text_of(item) for item in value])}]"
    if isinstance(value, type) or inspect.isroutine(value):
        return _name(value)
    return repr(value)


def digest_of(structure: tuple[Any, ...]) -> str:
    """What a block has to be, from its `structure_key`. Whether an INT8 module is in training mode matters to none."""
    return _sum(
        text_of(
            tuple(
                (
                    name,
                    cls,
                    tuple(s for s in settings if s[0] != "training") if issubclass(cls, Int8Module) else settings,
                    tensors,
                )
                for name, cls, settings, tensors in structure
            )
        )
    )


def _name(value: Any) -> str:
    return f"<{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}>"


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
