"""Small modules made for the passes, captured, with the inputs they were captured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from optimum_int8.fx import agree, capture
from optimum_int8.fx.arguments import flatten
from optimum_int8.fx.rewrite import aten, ours
from optimum_int8.nn import Bfloat16Attention, Int8Attention, Int8Embedding, Int8Linear, float32_attention
from optimum_int8.passes import PASSES

WIDTH = 64


def linear(
    inner: int = WIDTH, outer: int = WIDTH, low: float = -3.0, high: float = 3.0, static: bool = True, bias: bool = True
) -> Int8Linear:
    torch.manual_seed(inner + outer + int(low * 10))
    return Int8Linear.from_float(nn.Linear(inner, outer, bias=bias).eval(), (low, high) if static else None)


def norm(width: int = WIDTH) -> nn.LayerNorm:
    layer = nn.LayerNorm(width)
    with torch.no_grad():
        layer.weight.add_(torch.randn(width, generator=torch.Generator().manual_seed(1)) * 0.1)
        layer.bias.add_(torch.randn(width, generator=torch.Generator().manual_seed(2)) * 0.1)
    return layer.requires_grad_(False)


class Of(nn.Module):
    """A module of parts and a function of them and the inputs."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


class Case:
    """A captured graph, its inputs, and what the module itself answers."""

    def __init__(self, function: Callable[..., Any], *inputs: Tensor, **parts: nn.Module) -> None:
        module = Of(function, **parts)
        self.inputs = list(inputs) or [torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))]
        with torch.no_grad():
            expected = module(*self.inputs)
            self.expected = [expected] if isinstance(expected, Tensor) else list(expected)
            key, tensors = flatten(self.inputs, {})
            self.graph: fx.GraphModule = capture(module, module.forward, key, tensors).bind(module)

    def apply(self, *names: str) -> int:
        """Run passes by name; the count of the last."""
        count = 0
        for step in PASSES:
            if step.run.__name__ in names:
                count = step.run(self.graph)
                self.graph.graph.eliminate_dead_code()
                self.graph.graph.lint()
                self.graph.recompile()
        return count

    def before(self, name: str) -> None:
        """Run all passes that come before one."""
        for step in PASSES:
            if step.run.__name__ == name:
                return
            self.apply(step.run.__name__)
        raise ValueError(name)

    def run(self) -> list[Tensor]:
        with torch.no_grad():
            return list(self.graph(*self.inputs))

    def count(self, target: Any) -> int:
        return sum(node.op == "call_function" and node.target is target for node in self.graph.graph.nodes)


class Float32Attention(nn.Module):
    """The float32 core of the attention interface, as a module."""

    def forward(self, *args: Any) -> Tensor:
        return float32_attention(*args)


def attention(
    static: bool = True,
    heads: int = 2,
    mask: bool = False,
    width: int = WIDTH,
    shared: bool = True,
    core: nn.Module | None = None,
) -> Case:
    """An attention layer as Transformers writes it: projections, heads, core, rows, output, residual, norm."""

    def forward(m: Any, x: Tensor, *masks: Tensor) -> Tensor:
        shape = (*x.shape[:-1], heads, -1)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (m.q, m.k, m.v))
        core = m.core(q, k, v, masks[0] if masks else None, 0.3, False)
        return m.norm(m.out(core.reshape(*x.shape[:-1], -1)) + x)

    grids = {"query": (-2.0, 2.0), "key": (-2.0, 1.0), "value": (-1.5, 1.5)} if static else None
    highs = (3.0, 3.0, 3.0) if shared else (3.0, 2.5, 3.0)
    parts = {name: linear(width, width, -3.0, high, static) for name, high in zip("qkv", highs, strict=True)}
    for i, part in enumerate(parts.values()):
        part.bias.add_(0.1 * i)  # the three are not one weight
    x = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(0))
    masks = (
        (torch.arange(5).view(1, 1, 1, 5).expand(2, 1, 5, 5) < torch.tensor([5, 3]).view(2, 1, 1, 1),) if mask else ()
    )
    return Case(
        forward,
        x,
        *masks,
        core=Int8Attention.from_ranges(grids) if core is None else core,
        out=linear(width, width, static=static),
        norm=norm(width),
        **parts,
    )


def feed_forward(static: bool = True, activation: Callable[[Tensor], Tensor] = nn.functional.gelu) -> Case:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.norm(m.down(nn.functional.dropout(activation(m.up(x)), 0.1, False)) + x)

    return Case(forward, up=linear(WIDTH, 96, static=static), down=linear(96, WIDTH, -0.2, 2.5, static), norm=norm())


def two_layers(static: bool = True) -> Case:
    """Pre-norm and post-norm in turn, so that each norm feeds a linear, a residual, or both."""

    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.first(m.a(x) + x)
        z = m.second(m.c(torch.relu(m.b(y))) + y)
        return z, m.d(z).to(torch.float32)

    parts = {name: linear(high=2.0 + i, static=static) for i, name in enumerate("abcd")}
    return Case(forward, first=norm(), second=norm(), **parts)


def embeddings() -> Case:
    """Tokens and types, with positions that the batch shares, then a norm."""
    tables = {name: Int8Embedding.from_float(nn.Embedding(9, WIDTH)) for name in ("tokens", "types", "positions")}

    def forward(m: Any, ids: Tensor) -> Tensor:
        positions = (torch.arange(ids.shape[1]) % 9).unsqueeze(0)
        return m.norm(m.tokens(ids) + m.types(torch.zeros_like(ids)) + m.positions(positions))

    return Case(forward, torch.randint(0, 9, (2, 5), generator=torch.Generator().manual_seed(0)), norm=norm(), **tables)


CASES: dict[str, Callable[[], Case]] = {
    f"{name} {'static' if static else 'dynamic'}": (lambda make=make, static=static: make(static))
    for name, make in {
        "attention": attention,
        "masked attention": lambda static: attention(static, mask=True),
        "float32 attention": lambda static: attention(static, mask=True, core=Float32Attention()),
        "bfloat16 attention": lambda static: attention(static, heads=4, core=Bfloat16Attention()),
        "odd attention": lambda static: attention(static, heads=3, width=51),
        "feed forward": feed_forward,
        "two layers": two_layers,
    }.items()
    for static in (True, False)
} | {"embeddings": embeddings}
"""Every pass is run on each of these."""

__all__ = [
    "CASES",
    "WIDTH",
    "Case",
    "Of",
    "aten",
    "attention",
    "embeddings",
    "feed_forward",
    "linear",
    "norm",
    "ours",
    "two_layers",
]


def same(case: Case, tolerance: float = 0.0) -> bool:
    return agree(case.run(), case.expected, tolerance)
