"""Small networks on images for the passes, captured; see `graphs`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from optimum_int8.nn import Int8AvgPool, Int8Conv
from tests.passes.graphs import Case, linear


def conv(inner: int, outer: int, kernel: int = 3, static: bool = True, **options: Any) -> Int8Conv:
    torch.manual_seed(inner + 10 * outer + 100 * kernel)
    made = nn.Conv2d(inner, outer, kernel, **{"padding": kernel // 2, **options})
    return Int8Conv.from_float(made.eval(), (-3.0, 4.0) if static else None)


def batch_norm(channels: int, affine: bool = True, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    torch.manual_seed(channels)
    norm = kind(channels, affine=affine).eval().requires_grad_(False)
    norm.running_mean.normal_(0.0, 0.3)
    norm.running_var.uniform_(0.3, 1.5)
    if affine:
        norm.weight.normal_(0.5, 0.7)  # some are negative
        norm.bias.normal_(0.0, 0.3)
    return norm


def image(channels: int = 8, height: int = 9, width: int = 7) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2


def bottleneck(static: bool = True) -> Case:
    """Two of them: with a shortcut of its own and a stride, and with the identity."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = torch.relu(m.n1(m.a1(x)))
        y = torch.relu(m.n2(m.a2(y)))
        y = torch.relu(m.n3(m.a3(y)) + m.n0(m.a0(x)))
        z = nn.functional.relu(m.n4(m.b1(y)), inplace=True)
        z = m.n5(m.b2(z))
        z += y
        return nn.functional.relu(z, inplace=True)

    parts = {
        "a0": conv(8, 40, 1, static, stride=2), "a1": conv(8, 16, 1, static, bias=False), "a2": conv(16, 16, 3, static, stride=2),
        "a3": conv(16, 40, 1, static), "b1": conv(40, 33, 3, static, groups=1), "b2": conv(33, 40, 1, static),
    }  # fmt: skip
    norms = {f"n{i}": batch_norm(c, affine=i != 1) for i, c in enumerate((40, 16, 16, 40, 33, 40))}
    return Case(forward, image(), **parts, **norms)


def detector(static: bool = True) -> Case:
    """Leaky ReLUs and max pooling, as YOLO v2 has them, and a depthwise convolution with hardswish and SiLU."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = nn.functional.max_pool2d(nn.functional.leaky_relu(m.na(m.a(x)), 0.1), 2, 2)
        y = nn.functional.max_pool2d(nn.functional.hardswish(m.b(y)), 3, 1, 1)
        return nn.functional.max_pool2d(nn.functional.silu(m.c(y)), 2, 1)

    parts = {"a": conv(8, 18, static=static), "b": conv(18, 18, groups=18, static=static), "c": conv(18, 5, 1, static)}
    return Case(forward, image(height=13, width=12), na=batch_norm(18), **parts)


def sequence(static: bool = True) -> Case:
    """Convolutions over a sequence, with a batch norm."""

    def one(inner: int, outer: int, kernel: int) -> Int8Conv:
        torch.manual_seed(inner)
        made = nn.Conv1d(inner, outer, kernel, padding=kernel // 2).eval()
        return Int8Conv.from_float(made, (-3.0, 4.0) if static else None)

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.b(torch.relu(m.n(m.a(x))))

    x = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(0))
    return Case(forward, x, a=one(12, 20, 5), n=batch_norm(20, kind=nn.BatchNorm1d), b=one(20, 7, 3))


def average(**options: Any) -> Int8AvgPool:
    made = nn.AvgPool2d(**options) if options else nn.AdaptiveAvgPool2d(1)
    return Int8AvgPool.from_float(made.eval(), (-1.0, 5.0))


def averages(static: bool = True) -> Case:
    """Average pooling between convolutions, of all of an image to scale channels, and below a linear; by modules and by functions."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.p(torch.relu(m.a(x)))
        y = nn.functional.avg_pool2d(m.b(y), 2, ceil_mode=True)
        y = y + m.d(m.whole(y))
        return m.linear(torch.relu(m.c(y)).mean((-2, -1)))

    pools = nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AdaptiveAvgPool2d(1)
    modules = (average(kernel_size=3, stride=2, padding=1, count_include_pad=False), average()) if static else pools
    parts = {"a": conv(8, 18, static=static), "b": conv(18, 33, static=static), "d": conv(33, 33, 1, static)}
    head = linear(70, 5, static=static)
    return Case(
        forward,
        image(height=13, width=12),
        **parts,
        c=conv(33, 70, 1, static),
        p=modules[0],
        whole=modules[1],
        linear=head,
    )


IMAGE_CASES = {
    f"{name} {'static' if static else 'dynamic'}": (lambda make=make, static=static: make(static))
    for name, make in {
        "bottleneck": bottleneck,
        "detector": detector,
        "sequence": sequence,
        "averages": averages,
    }.items()
    for static in (True, False)
}
