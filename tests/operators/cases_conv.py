"""Convolutions and pooling for `cases.CASES`: odd sizes, tile edges, every stride, padding, dilation and grouping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from optimum_int8 import kernels, numerics
from optimum_int8.numerics import CONV_ACTIVATIONS, Window

Made = Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]

SAME = Window(3, 3, 1, 1, 1, 1, 1, 1)
SHAPES: dict[str, tuple[int, int, int, int, int, Window, int]] = {
    # batch, height, width, in, out, window, groups
    "1x1": (1, 5, 7, 65, 33, Window(1, 1), 1),
    "1x1-64": (2, 8, 4, 64, 64, Window(1, 1), 1),
    "1x1-stride": (1, 7, 6, 17, 31, Window(1, 1, 2, 2), 1),
    "one_value": (1, 1, 1, 1, 1, Window(1, 1), 1),
    "3x3": (1, 6, 5, 16, 32, SAME, 1),
    "3x3-no_padding": (2, 9, 8, 15, 17, Window(3, 3), 1),
    "3x3-stride": (1, 9, 12, 32, 64, Window(3, 3, 2, 2, 1, 1, 1, 1), 1),
    "3x3-one_pixel": (1, 1, 1, 5, 7, SAME, 1),
    "3x3-dilation": (1, 11, 10, 3, 34, Window(3, 3, 1, 1, 2, 2, 2, 2, 2, 2), 1),
    "3x3-wide": (1, 13, 11, 64, 97, SAME, 1),
    "7x7-stem": (1, 21, 19, 3, 64, Window(7, 7, 2, 2, 3, 3, 3, 3), 1),
    "5x2-uneven": (2, 8, 9, 6, 33, Window(5, 2, 3, 1, 1, 0, 4, 2, 1, 3), 1),
    "1d": (2, 1, 37, 12, 20, Window(1, 5, 1, 2, 0, 2, 0, 2), 1),
    "groups": (1, 6, 7, 12, 18, SAME, 3),
    "groups-wide": (1, 5, 5, 128, 66, Window(3, 3, 2, 1, 1, 1, 1, 1), 2),
    "multiplier": (1, 4, 5, 6, 12, SAME, 6),
    "depthwise": (2, 7, 6, 33, 33, SAME, 33),
    "depthwise-stride": (1, 10, 9, 48, 48, Window(5, 5, 2, 2, 2, 2, 2, 2), 48),
    "depthwise-dilation": (1, 9, 9, 17, 17, Window(3, 2, 1, 2, 2, 0, 1, 1, 2, 3), 17),
    "depthwise-1d": (1, 1, 40, 16, 16, Window(1, 31, 1, 1, 0, 15, 0, 15), 16),
    "3x3-heavy": (1, 7, 5, 256, 96, SAME, 1),  # panels beyond the cache: walked one after the other
    "3x3-narrow": (1, 9, 11, 4, 40, SAME, 1),
    "depthwise-wide": (1, 9, 8, 97, 97, Window(3, 3, 2, 1, 1, 1, 1, 1), 97),
    "3x3-tiles": (2, 14, 11, 144, 64, Window(3, 3, 1, 1, 0, 2, 1, 0), 1),  # by Winograd's way, on AVX2
    "3x3-stride-large": (1, 61, 70, 64, 40, Window(3, 3, 2, 2, 1, 1, 1, 1), 1),  # more lines than stay in the cache
    "3x3-far": (1, 40, 9, 64, 8, Window(3, 3, 1, 1, 16, 1, 16, 1, 16, 1), 1),
    "1x1-beyond": (1, 3, 1, 64, 8, Window(1, 1, 7, 7, 5, 5, 0, 0), 1),  # reads padding that begins before its line
    "many_rows": (1, 23, 29, 8, 5, Window(3, 3, 1, 1, 1, 1, 1, 1), 1),
}


def grid(low: float = -4.0, high: float = 7.0) -> tuple[Tensor, Tensor]:
    scale, zero_point = numerics.choose_affine_qparams(low, high)
    return torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)


def arguments(shape: str, dynamic: bool = False, bias: bool = True) -> tuple[Any, ...]:
    batch, height, width, inner, outer, window, groups = SHAPES[shape]
    x = torch.randn(batch, height, width, inner) * 3
    q = numerics.quantize_samples(x) if dynamic else (numerics.quantize_affine(x, *grid()), *grid())
    weight = torch.randn(outer, inner // groups, window.height, window.width)
    int8, scale = numerics.quantize_weight(weight.flatten(1))
    packed = kernels.pack_conv(int8.view(weight.shape), groups)
    return *q, *packed, scale, torch.randn(outer) if bias else None, list(window), groups


def residual(args: tuple[Any, ...]) -> Tensor:
    x, window = args[0], Window(*args[7])
    return torch.randn(x.shape[0], *window.output_size(*x.shape[1:3]), args[5].shape[0]) * 2


def conv() -> Made:
    for shape in SHAPES:
        for dynamic in (False, True):
            yield f"{shape}-{'dynamic' if dynamic else 'static'}", lambda s=shape, d=dynamic: arguments(s, d)
    yield "no_bias", lambda: arguments("3x3", bias=False)
    for name in CONV_ACTIVATIONS:
        yield name, lambda n=name: (*arguments("3x3-stride"), n, 0.1)
        yield f"{name}-added", lambda n=name: _added("3x3-no_padding", n)
        yield f"{name}-added-bytes", lambda n=name: _added_bytes("3x3-no_padding", n)
    yield "depthwise-silu", lambda: (*arguments("depthwise"), "silu")
    for shape in ("1x1", "groups", "depthwise", "many_rows"):
        yield f"{shape}-added", lambda s=shape: _added(s, "relu")
    for shape in ADDED:
        yield f"{shape}-added-bytes", lambda s=shape: _added_bytes(s, "relu")
    yield "dynamic-added-bytes", lambda: (*arguments("3x3", True), "none", 0.0, *_bytes("3x3"))
    for value in (0, 255):
        yield f"all_{value}", lambda v=value: _extreme(v)


def _added(shape: str, final: str) -> tuple[Any, ...]:
    args = arguments(shape)
    return *args, "none" if final != "none" else "relu", 0.2, residual(args), final


ADDED = (
    "1x1",
    "1x1-64",
    "one_value",
    "3x3-tiles",
    "3x3-wide",
    "3x3-heavy",
    "groups",
    "depthwise",
    "depthwise-wide",
    "many_rows",
    "1d",
)
"""Shapes with a residual on a grid: whole panels, odd channels, panels walked either way, and taps."""


def _bytes(shape: str, final: str = "none") -> tuple[Any, ...]:
    """A residual on a grid of its own, and the activation after it, as `conv` takes them."""
    scale, zero_point = grid(-1.7, 3.1)
    return numerics.quantize_affine(residual(arguments(shape)), scale, zero_point), final, scale, zero_point


def _added_bytes(shape: str, final: str) -> tuple[Any, ...]:
    return *arguments(shape), "none" if final != "none" else "relu", 0.2, *_bytes(shape, final)


def _extreme(value: int) -> tuple[Any, ...]:
    """The largest sums of a 3x3 kernel, with the zero point that moves them furthest."""
    x = torch.full((1, 4, 4, 70), value, dtype=torch.uint8)
    weight = torch.full((2, 70, 3, 3), -127, dtype=torch.int8)
    packed = kernels.pack_conv(weight, 1)
    return (
        x,
        torch.tensor(0.5),
        torch.tensor(255 - value, dtype=torch.int32),
        *packed,
        torch.ones(2),
        None,
        list(SAME),
        1,
    )


def conv_to_bytes() -> Made:
    for shape in SHAPES:
        yield shape, lambda s=shape: (*arguments(s), "relu", 0.0, None, "none", *grid(-3.0, 9.0))
    for shape in ("1x1", "3x3-wide", "groups", "depthwise", "many_rows"):
        yield f"{shape}-added", lambda s=shape: (*_added(s, "relu"), *grid(-3.0, 9.0))
    for shape in ADDED:
        for final in ("none", "relu") if shape in ("1x1-64", "3x3-heavy") else ("relu",):
            yield f"{shape}-added-bytes-{final}", lambda s=shape, f=final: _to_bytes(*_added_bytes(s, f))
    for name in CONV_ACTIVATIONS:
        yield f"{name}-added-bytes", lambda n=name: _to_bytes(*_added_bytes("3x3-wide", n))
        yield f"{name}-before-bytes", lambda n=name: _to_bytes(*arguments("1x1-64"), n, 0.2, *_bytes("1x1-64", "relu"))
    yield "dynamic", lambda: (*arguments("3x3", True), "none", 0.0, None, "none", *grid(-3.0, 9.0))


def _to_bytes(*args: Any) -> tuple[Any, ...]:
    """The arguments of `conv` as those of `conv_quantized`."""
    return *args[:13], *grid(-3.0, 9.0), *args[13:]


def pools() -> Made:
    windows = {
        "2x2": Window(2, 2, 2, 2),
        "3x3": Window(3, 3, 2, 2, 1, 1, 1, 1),
        "uneven": Window(2, 3, 1, 2, 0, 1, 1, 1, 2, 1),
        "all": Window(7, 9),
    }
    for name, window in windows.items():
        for channels in (1, 16, 33, 64):
            yield f"{name}-{channels}", lambda w=window, c=channels: _pool(w, c)


def _pool(window: Window, channels: int) -> tuple[Any, ...]:
    return torch.randint(0, 256, (2, 7, 9, channels), dtype=torch.uint8), list(window)


def max_pools() -> Made:
    yield from pools()
    for name, make in pools():
        yield f"{name}-floats", lambda m=make: (_floats(m()[0]), m()[1])


def _floats(x: Tensor) -> Tensor:
    y = (x.to(torch.float32) - 99.0) * 1e-3
    y[0, 1, 2], y[-1, 0, 0] = float("nan"), -float("inf")
    return y


AVERAGED: dict[str, tuple[Window | None, bool]] = {
    "2x2": (Window(2, 2, 2, 2), False),
    "3x3": (Window(3, 3, 2, 2, 1, 1, 1, 1), False),
    "3x3-padding_counts": (Window(3, 3, 1, 2, 1, 1, 1, 1), True),
    "uneven": (Window(2, 5, 1, 3, 0, 2, 0, 2), False),
    "beyond": (Window(3, 2, 3, 2, 0, 0, 2, 1), False),  # as ceil_mode
    "beyond-padding_counts": (Window(4, 4, 3, 3, 2, 2, 4, 4), True),
    "all": (None, False),
    "all-given": (Window(7, 9), True),
}


def avg_pools(*rest: Any) -> Made:
    for name, (window, padding_counts) in AVERAGED.items():
        for channels in (1, 16, 33, 64, 65, 200):
            more = None if window is None else list(window), padding_counts, *rest
            bytes_ = lambda c=channels, m=more: (_pixels(c), *grid(), *m)  # noqa: E731
            yield f"{name}-{channels}", bytes_
            yield f"{name}-{channels}-floats", lambda c=channels, m=more: (_floats(_pixels(c)), None, None, *m)
    for value in (0, 255):
        for height, width in ((300, 200), (3, 300), (258, 1), (257, 1)):  # sums beyond what float32, and uint16, hold
            image = torch.full((1, height, width, 67), value, dtype=torch.uint8)
            zero = torch.tensor(255 - value, dtype=torch.int32)
            yield f"all_{value}-{height}x{width}", lambda i=image, z=zero: (i, torch.tensor(0.5), z, None, False, *rest)


def _pixels(channels: int) -> Tensor:
    return torch.randint(0, 256, (2, 7, 9, channels), dtype=torch.uint8)


def samples() -> Made:
    for shape in ((1, 1, 1, 1), (3, 5, 7, 3), (2, 9, 4, 33), (2, 8, 8, 64)):
        yield f"{shape}", lambda s=shape: (torch.randn(s) * torch.tensor(3.0) ** torch.arange(s[0]).view(-1, 1, 1, 1),)
    yield "zeros", lambda: (torch.zeros(2, 3, 3, 4),)
    yield "from_nchw", lambda: (torch.randn(2, 5, 4, 6).permute(0, 2, 3, 1),)
