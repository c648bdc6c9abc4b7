"""For which sizes a captured graph holds.

A model's Python asks for sizes (`if x.shape[1] > 512`), and `torch.export` follows the one branch that its example takes. It writes down
what that branch assumes; a graph serves only calls that meet it. Of sizes 1 it writes nothing: it takes them to be larger.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..torch_private import export_guards

Guard = Callable[[Sequence[Tensor]], bool]

_INPUTS = re.compile(r"\bL\['tensors'\]")
_NAMES: dict[str, Any] = {"__builtins__": {}, "math": math, "torch": torch, "max": max, "min": min, "abs": abs}


def assumptions(exported: ExportedProgram) -> list[str]:
    """What an exported graph assumes of the sizes of `tensors`, as expressions of Python."""
    return [_INPUTS.sub("tensors", text).strip() for text in export_guards(exported)]


def compile_guard(expressions: Sequence[str]) -> Guard | None:
    """A function that says whether tensors meet all expressions; None without any."""
    if not expressions:
        return None
    text = " and ".join(f"({expression})" for expression in expressions)
    return eval(f"lambda tensors: {text}", _NAMES)  # written by torch.export a moment ago


def single_axes(tensors: Sequence[Tensor]) -> tuple[bool, bool]:
    """Whether batch and length are 1: where they are, a model's Python may take a branch that the graph does not know."""
    shape = tensors[0].shape
    return len(shape) > 0 and shape[0] == 1, len(shape) > 1 and shape[1] == 1
