"""A few rows and tokens of a call: what a graph is checked on, so that a first call costs little more than a later one.

Nothing is checked less than where a small call came first: a graph serves every size that its guards admit (`guards.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .arguments import Key, NotCapturable, cache_tensors, flatten, rebuild
from .captured import is_image, varying_axes

ROWS = 4
TOKENS = 16
_VECTORS = 16
"""Rows that stay of a call without a length, and of images two: they are large."""

_COMPARISON = re.compile(r"tensors\[(\d+)\]\.size\(\)\[(\d+)\] (?:<=|<|>=|>|==|!=) (\d+)")
_SIZE = re.compile(r"tensors\[(\d+)\]\.size\(\)\[(\d+)\]")
_EQUALITY = re.compile(r"tensors\[\d+\]\.size\(\)\[\d+\] == tensors\[\d+\]\.size\(\)\[\d+\]")


def slice_call(key: Key, tensors: Sequence[Tensor], layer: int | None) -> list[Tensor] | None:
    """Copies of a call's tensors at fewer rows and tokens, with the same guard key; None where the call is small or that cannot be.

    All tensors lose the same rows and tokens: axes are told as for the example of an export (`other_shapes`). A call with a cache keeps
    its length, which the states have a part in. Rows with the least and the most in a mask stay, and tokens at both ends: padding does too.
    """
    if not tensors or tensors[0].dim() < 2 or tensors[0].layout is not torch.strided:
        return None
    taken = {size for tensor in tensors for size in tensor.shape}
    batch = tensors[0].shape[0]
    has_length = 1 in varying_axes(tensors[0])
    length = tensors[0].shape[1] if has_length and not cache_tensors(key) else 0
    most = ROWS if has_length else 2 if is_image(tensors[0]) else _VECTORS
    indices: dict[int, Tensor] = {}
    if batch > most:
        indices[0] = _rows(tensors, _unlike(most, taken))
    if length > TOKENS:
        indices[1] = _ends(length, _unlike(TOKENS, taken | {len(indices.get(0, ()))}))
    if not indices:
        return None
    made: dict[int, Tensor] = {}
    with torch.inference_mode(False):
        for tensor in tensors:
            made[id(tensor)] = _slice(tensor, batch, length, indices)
    sliced = [made[id(tensor)] for tensor in tensors]
    try:
        same = flatten(*rebuild(key, sliced, layer), layer)[0] == key
    except NotCapturable:
        return None
    return sliced if same else None


def _slice(tensor: Tensor, batch: int, length: int, indices: dict[int, Tensor]) -> Tensor:
    made = tensor.detach()
    for axis in varying_axes(tensor) or ((0,) if tensor.dim() else ()):
        size = tensor.shape[axis]
        if axis == 0 and size == batch and 0 in indices:
            made = made.index_select(0, indices[0])
        elif axis > 0 and size == length and 1 in indices:
            made = made.index_select(axis, indices[1])
    return made.clone() if made.data_ptr() == tensor.data_ptr() else made


def _unlike(size: int, taken: set[int]) -> int:
    """The largest size up to this one that no axis of the call has: an axis of another meaning should not look like it."""
    return next((n for n in range(size, max(1, size // 2), -1) if n not in taken), size)


def _rows(tensors: Sequence[Tensor], count: int) -> Tensor:
    """The first row, those with the least and the most in masks and other arguments, and what follows the first."""
    batch = tensors[0].shape[0]
    chosen = [0]
    for tensor in tensors[1:]:
        if tensor.dim() > 1 and tensor.shape[0] == batch and (tensor.dim() != 3 or not tensor.is_floating_point()):
            amounts = tensor.detach().flatten(1).float().clamp(-1.0, 1.0).mean(1)
            chosen += [int(amounts.argmin()), int(amounts.argmax())]
    chosen = list(dict.fromkeys([*chosen, *range(count)]))[:count]
    return torch.tensor(sorted(chosen))


def _ends(length: int, count: int) -> Tensor:
    first = count - count // 2
    return torch.cat([torch.arange(first), torch.arange(length - count // 2, length)])


def between(assumed: Sequence[Any], small: Sequence[Tensor], whole: Sequence[Tensor]) -> bool:
    """Whether a graph assumes something of sizes that lies between a slice and its call, or may: then only the call can tell.

    That sizes are equal does not, `size <= 512` does not where both are below, and nothing does of sizes that the slice left alone.
    """
    return any(_lies_between(str(text), small, whole) for text in assumed)


def _lies_between(text: str, small: Sequence[Tensor], whole: Sequence[Tensor]) -> bool:
    if _EQUALITY.fullmatch(text):
        return False
    comparison = _COMPARISON.fullmatch(text)
    if comparison is not None:
        tensor, axis, bound = (int(group) for group in comparison.groups())
        return small[tensor].shape[axis] <= bound <= whole[tensor].shape[axis]
    sizes = [(int(tensor), int(axis)) for tensor, axis in _SIZE.findall(text)]
    return not sizes or any(small[tensor].shape[axis] != whole[tensor].shape[axis] for tensor, axis in sizes)
