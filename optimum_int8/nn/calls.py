"""Which module runs, and where in its code a torch function is called: what names a functional op as a site.

A site of the form `matmul_3` is the call in the third line of the module's `forward` (lines of helper functions follow, joined by `_`).
The place in the source stays the same in every branch, every loop and every process; a running number would not.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPS: dict[Callable[..., Any], str] = {
    F.linear: "linear",
    torch.addmm: "linear",
    F.conv1d: "conv1d",
    F.conv2d: "conv2d",
    F.conv3d: "conv3d",
    F.embedding: "embedding",
    F.scaled_dot_product_attention: "attention",
    **dict.fromkeys([torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__], "matmul"),
    **dict.fromkeys([torch.add, Tensor.add, Tensor.__add__, Tensor.add_, Tensor.__iadd__], "add"),
    **dict.fromkeys([torch.cat, torch.concat, torch.concatenate], "cat"),
}
"""The torch functions that can be ops of a recipe, by the name the op has there."""

IN_PLACE = (Tensor.add_, Tensor.__iadd__)

_CALL = nn.Module._call_impl.__code__
_OUTER_CALL = nn.Module._wrapped_call_impl.__code__
_TORCH = str(Path(torch.__file__).parent)
_LAYERS = str(Path(torch.nn.modules.__file__).parent)
_OURS = str(Path(__file__).parent.parent)

Place = tuple[tuple[CodeType, int], ...]
"""The calls between a module's `__call__` and the torch function, the outermost first: code and instruction."""


@dataclass
class Running:
    """The modules that run, the outermost first, where the innermost calls from, and the outermost call's frame."""

    modules: list[nn.Module]
    place: Place
    lines: tuple[int, ...]
    frame: FrameType


def running(frame: FrameType | None, stop: FrameType | None = None) -> Running | None:
    """What runs at `frame`; None outside of any module. Frames from `stop` on do not count."""
    modules: list[nn.Module] = []
    place: list[tuple[CodeType, int]] = []
    lines: list[int] = []
    inside, outermost = True, None
    while frame is not None and frame is not stop:
        code = frame.f_code
        if code is _CALL:
            inside = False
        elif inside and not _is_plumbing(code.co_filename):
            place.append((code, frame.f_lasti))
            lines.append(frame.f_lineno - code.co_firstlineno)
        if code.co_argcount and code.co_varnames[0] == "self" and code is not _CALL:
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module):
                outermost = frame
                if not modules or modules[-1] is not module:
                    modules.append(module)
        frame = frame.f_back
    if outermost is None or inside:
        return None
    return Running(modules[::-1], tuple(place[::-1]), tuple(lines[::-1]), outermost)


def place_of_call(depth: int) -> Place:
    """The place alone, of the caller `depth` frames up: what is asked at every call of a model."""
    frame: FrameType | None = sys._getframe(depth + 1)
    place = []
    while frame is not None and frame.f_code is not _CALL:
        if not _is_plumbing(frame.f_code.co_filename):
            place.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(place[::-1])


@functools.cache
def _is_plumbing(file: str) -> bool:
    """Whether a file is torch's (its layers excepted) or ours: which of its functions lie between depends on who else listens."""
    return file.startswith(_OURS) or (file.startswith(_TORCH) and not file.startswith(_LAYERS))


def arguments_of(frame: FrameType) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Arguments of a module's `__call__`, if that is what runs in `frame`."""
    if frame.f_code is not _OUTER_CALL:
        return None
    return frame.f_locals.get("args", ()), frame.f_locals.get("kwargs", {})
