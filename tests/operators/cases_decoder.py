"""Arguments of the operators of decoders: norms of heads, rotary embedding, gated activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from optimum_int8 import kernels

Cases = Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]

_HEADS = (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 128)
_WIDTHS = (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97)
_EXTREME = (0.0, -0.0, 1e-45, -1e-40, 0.5, -0.5, 20.0, -20.0, 88.0, -88.0, 1e4, -1e4, 1e18, -1e18)


def _rows(*shape: int) -> Tensor:
    """Random rows, among them an all-zero, a tiny and a huge one."""
    x = torch.randn(*shape) * 3
    flat = x.view(-1, shape[-1])
    if len(flat) > 3:
        flat[1] = 0.0
        flat[2] *= 1e-30
        flat[3] *= 1e12
    return x


def gated(*more: Any) -> Cases:
    for width in _WIDTHS:
        yield f"{width}", lambda w=width: (_rows(33, w), _rows(33, w), "silu", *more)
    for activation in kernels.ACTIVATIONS:
        yield activation, lambda a=activation: (_rows(5, 47), _rows(5, 47), a, *more)
        yield f"{activation}-extreme", lambda a=activation: (*_extremes(), a, *more)
    yield "leading_axes", lambda: (_rows(2, 3, 5, 48), _rows(2, 3, 5, 48), "gelu", *more)
    yield "columns", lambda: (*_rows(7, 96).split(48, -1), "silu", *more)


def _extremes() -> tuple[Tensor, Tensor]:
    """Each of the extremes times each other."""
    values = torch.tensor(_EXTREME)
    return values.repeat(len(values), 1), values.unsqueeze(-1).repeat(1, len(values))


def head_norm() -> Cases:
    for kind in ("rms_norm", "layer_norm"):
        for head in _HEADS:
            yield f"{kind}-{head}", lambda k=kind, h=head: _head_norm(k, 3, h)
        yield f"{kind}-plain", lambda k=kind: _head_norm(k, 2, 48, weight=False)
        yield f"{kind}-bias", lambda k=kind: _head_norm(k, 2, 48, bias=True)
    yield "one_head", lambda: _head_norm("rms_norm", 1, 48)
    yield "leading_axes", lambda: (_rows(2, 3, 4, 96), torch.randn(32), None, 3, "rms_norm", 1e-6)


def _head_norm(kind: str, heads: int, head: int, weight: bool = True, bias: bool = False) -> tuple[Any, ...]:
    scale, shift = (torch.randn(head) if wanted else None for wanted in (weight, bias))
    return _rows(17, heads * head), scale, shift, heads, kind, 1e-5


def take_heads() -> Cases:
    for head in _HEADS:
        yield f"third-{head}", lambda h=head: (_rows(17, 9 * h), h, 3 * h, 3, h)
    yield "one", lambda: (_rows(5, 33), 1, 1, 1, 32)
    yield "overlapping", lambda: (_rows(5, 33), 0, 7, 4, 12)
    yield "leading_axes", lambda: (_rows(2, 3, 96), 16, 48, 2, 16)


def rotary() -> Cases:
    for interleaved in (False, True):
        kind = "interleaved" if interleaved else "half"
        for head in (2, 6, 16, 30, 32, 34, 62, 64, 66, 96, 128):
            yield f"{kind}-{head}", lambda h=head, i=interleaved: _rotary(3, h, h, i)
        for turned in (2, 8, 32, 40):
            yield f"{kind}-{turned}_of_48", lambda t=turned, i=interleaved: _rotary(2, 48, t, i)
        yield f"{kind}-shared", lambda i=interleaved: _rotary(2, 32, 32, i, sequences=1)
    yield "odd_head", lambda: _rotary(2, 33, 16, False)
    yield "without_batch", lambda: (_rows(7, 64), *_angles(7, 32), 2, False)


def _angles(*shape: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines that differ between the two halves, as those of scaled embeddings may."""
    angle = torch.rand(*shape) * 6.3
    return angle.cos() * 1.3, angle.sin() * 1.3


def _rotary(heads: int, head: int, turned: int, interleaved: bool, sequences: int = 3) -> tuple[Any, ...]:
    return _rows(3, 5, heads * head), *_angles(sequences, 5, turned), heads, interleaved
