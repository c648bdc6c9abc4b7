"""Which module runs, and where in its code a torch function is called: what names a functional op as a site.

A site of the form `matmul_3` is the call three lines below the `def` of the module's `forward` (lines of helper functions follow, joined
by `_`; a second call in the same line gets a `b`). The place in the source stays the same in every branch, every loop and every process; a
running number would not.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...torch_private import MODULE_CALL, OUTER_MODULE_CALL

OPS: dict[Callable[..., Any], str] = {
    F.linear: "linear",
    torch.addmm: "linear",
    F.conv1d: "conv1d",
    F.conv2d: "conv2d",
    F.conv3d: "conv3d",
    F.embedding: "embedding",
    F.avg_pool1d: "avg_pool1d",
    F.avg_pool2d: "avg_pool2d",
    F.adaptive_avg_pool1d: "adaptive_avg_pool1d",
    F.adaptive_avg_pool2d: "adaptive_avg_pool2d",
    F.scaled_dot_product_attention: "attention",
    **dict.fromkeys([torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__], "matmul"),
    **dict.fromkeys([torch.add, Tensor.add, Tensor.__add__, Tensor.add_, Tensor.__iadd__], "add"),
    **dict.fromkeys([torch.cat, torch.concat, torch.concatenate], "cat"),
}
"""The torch functions that can be ops of a recipe, by the name the op has there."""

IN_PLACE = (Tensor.add_, Tensor.__iadd__)

_TORCH = str(Path(torch.__file__).parent)
_LAYERS = str(Path(torch.nn.modules.__file__).parent)
_OURS = str(Path(__file__).parents[2])

Place = tuple[tuple[CodeType, int], ...]
"""The calls between a module's `__call__` and the torch function, the outermost first: code and instruction."""


@dataclass
class Running:
    """The modules that run, the outermost first, where the innermost calls from, and the outermost call's frame.

    `owner` is the module whose `__call__` is the innermost: in its `forward` the place begins.
    """

    modules: list[nn.Module]
    place: Place
    lines: tuple[int, ...]
    frame: FrameType
    owner: nn.Module | None = None


def running(frame: FrameType | None, stop: FrameType | None = None) -> Running | None:
    """What runs at `frame`; None outside of any module. Frames from `stop` on do not count."""
    modules: list[nn.Module] = []
    place: list[tuple[CodeType, int]] = []
    lines: list[int] = []
    inside = True
    outermost = None
    owner = None
    inner: int | None = None
    while frame is not None and frame is not stop:
        code = frame.f_code
        if code is MODULE_CALL:
            owner = frame.f_locals.get("self") if inside else owner
            inside = False
        elif inside and not _is_plumbing(code.co_filename):
            place.append((code, frame.f_lasti))
            inner = _note_line(frame, inner, lines)
        if code.co_argcount and code.co_varnames[0] == "self" and code is not MODULE_CALL:
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module):
                outermost = frame
                if not modules or modules[-1] is not module:
                    modules.append(module)
        frame = frame.f_back
    if outermost is None or inside:
        return None
    return Running(modules[::-1], tuple(place[::-1]), tuple(lines[::-1]), outermost, owner)


def name_at(op: str, frame: FrameType | None, owner: nn.Module, begin: CodeType) -> str | None:
    """Name of the call of `op` at `frame`, if it is in the code of `owner`, whose frame with the code `begin` runs its `forward`, and not
    of a module inside: asked at every call of a model."""
    place: list[tuple[CodeType, int]] = []
    lines: list[int] = []
    inner: int | None = None
    while frame is not None and frame.f_code is not MODULE_CALL and frame.f_code is not begin:
        if not _is_plumbing(frame.f_code.co_filename):
            place.append((frame.f_code, frame.f_lasti))
            inner = _note_line(frame, inner, lines)
        frame = frame.f_back
    if frame is None or frame.f_code is not begin or frame.f_locals.get("self") is not owner:
        return None
    return call_name(op, tuple(place[::-1]), tuple(lines[::-1]))


def _note_line(frame: FrameType, inner: int | None, lines: list[int]) -> int | None:
    """Note a frame's line below its `def`. Up to Python 3.11 a comprehension has a frame of its own: its line (returned) is noted as one of
    the function around it, as later versions have it."""
    line = frame.f_lineno if inner is None else inner
    if frame.f_code.co_name in _COMPREHENSIONS:
        return line
    lines.append(line - frame.f_code.co_firstlineno)
    return None


def call_name(op: str, place: Place, lines: tuple[int, ...]) -> str:
    """Name of a call by its place; see the module."""
    with _naming:
        known = _names.get((op, place))
        if known is None:
            same = [n for (o, p), n in _names.items() if o == op and _codes(p) == _codes(place) and _line(n) == lines]
            known = f"{op}_{'_'.join(map(str, lines))}{chr(97 + len(same)) if same else ''}"
            _names[op, place] = known
        return known


def source_line(cls: type[nn.Module], name: str) -> str:
    """Text of the line of `cls.forward` in which the call `name` stands; empty where there is no source."""
    code = getattr(inspect.unwrap(cls.forward), "__code__", None)
    return "" if code is None else linecache.getline(code.co_filename, code.co_firstlineno + _line(name)[0]).strip()


def _codes(place: Place) -> tuple[CodeType, ...]:
    return tuple(code for code, _ in place)


def _line(name: str) -> tuple[int, ...]:
    return tuple(int(part.rstrip("abcdefghijklmnopqrstuvwxyz")) for part in name.split("_")[1:])


_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")
_names: dict[tuple[str, Place], str] = {}
_naming = threading.Lock()


@functools.cache
def _is_plumbing(file: str) -> bool:
    """Whether a file is torch's (its layers excepted) or ours: which of its functions lie between depends on who else traces."""
    return file.startswith(_OURS) or (file.startswith(_TORCH) and not file.startswith(_LAYERS))


def arguments_of(frame: FrameType) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Arguments of a module's `__call__`, if that is what runs in `frame`."""
    if frame.f_code is not OUTER_MODULE_CALL:
        return None
    return frame.f_locals.get("args", ()), frame.f_locals.get("kwargs", {})
