"""A decoder layer as Transformers writes it, with the variants that its families have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from optimum_int8.nn import Int8Attention
from tests.passes.graphs import WIDTH, Case, linear

HEADS = 2
HEAD = WIDTH // HEADS
F = nn.functional


class RMSNorm(nn.Module):
    """With the weight as it is, or stored less one."""

    def __init__(self, width: int, plus_one: bool = False) -> None:
        super().__init__()
        noise = torch.randn(width, generator=torch.Generator().manual_seed(width)) * 0.1
        self.weight = nn.Parameter(noise if plus_one else noise + 1.0, requires_grad=False)
        self.plus_one = plus_one

    def forward(self, x: Tensor) -> Tensor:
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (y * (1.0 + self.weight)).type_as(x) if self.plus_one else self.weight * y


def rotate_half(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def rotate_neighbours(x: Tensor) -> Tensor:
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def turn(x: Tensor, cos: Tensor, sin: Tensor, rotate: Callable[[Tensor], Tensor] = rotate_half) -> Tensor:
    """Of all elements of a head, or of the first ones."""
    turned = cos.shape[-1]
    if turned == x.shape[-1]:
        return x * cos + rotate(x) * sin
    first, rest = x[..., :turned], x[..., turned:]
    return torch.cat((first * cos + rotate(first) * sin, rest), dim=-1)


def angles(x: Tensor, turned: int = HEAD) -> tuple[Tensor, Tensor]:
    """Any will do; `[batch, 1, length, turned]`."""
    return x[..., :turned].cos().unsqueeze(1), x[..., :turned].sin().unsqueeze(1)


def past_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of a cache, one head each."""
    rows = x[..., :HEAD] * 2.0, x[..., HEAD:] * 0.5
    return tuple(t.view(*x.shape[:2], 1, HEAD).transpose(1, 2) for t in rows)  # type: ignore[return-value]


def decoder(
    static: bool = True,
    *,
    plus_one: bool = False,
    head_norms: bool = True,
    rotate: Callable[[Tensor], Tensor] = rotate_half,
    turned: int = HEAD,
    cached: bool = True,
    factor: float | None = None,
    flat: bool = False,
    activation: Callable[[Tensor], Tensor] = F.silu,
) -> Case:
    """Norms, rotary embedding, attention with one key head on a cache, gated feed-forward."""

    def forward(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        batch, length, _ = x.shape
        cos, sin = angles(x, turned)
        h = m.before(x)
        q = (m.q(h) if factor is None else m.q(h) * factor).view(batch, length, -1, HEAD)
        q = (m.q_norm(q) if head_norms else q).transpose(1, 2)
        k, v = (part(h).view(batch, length, -1, HEAD).transpose(1, 2) for part in (m.k, m.v))
        k = m.k_norm(k) if head_norms else k
        q, k = turn(q, cos, sin, rotate), turn(k, cos, sin, rotate)
        if cached:
            k, v = (torch.cat(pair, dim=-2) for pair in zip(past_of(x), (k, v), strict=True))
        core = m.core(q, k, v, None, HEAD**-0.5, not cached)
        x = x + m.out(core.reshape(batch, length, -1).contiguous())
        h = m.after(x)
        h = h.reshape(-1, WIDTH) if flat else h
        h = m.down(activation(m.gate(h)) * m.up(h))
        return x + (h.view(x.shape) if flat else h), k, v

    grids = {"query": (-2.0, 2.0), "key": (-2.0, 2.0), "value": (-1.5, 1.5)} if static else None
    parts = {name: linear(WIDTH, width, static=static) for name, width in (("q", WIDTH), ("k", HEAD), ("v", HEAD))}
    norms = {name: RMSNorm(WIDTH, plus_one) for name in ("before", "after")}
    norms |= {f"{name}_norm": RMSNorm(HEAD, plus_one) for name in ("qk" if head_norms else "")}
    mlp = {name: linear(WIDTH, 96, static=static, bias=False) for name in ("gate", "up")}
    mlp["up"].weight_scale.mul_(1.5)  # the two are not one weight
    return Case(
        forward,
        core=Int8Attention.from_ranges(grids),
        out=linear(static=static),
        down=linear(96, WIDTH, static=static),
        **parts,
        **norms,
        **mlp,
    )


def repeat(x: Tensor, times: int) -> Tensor:
    """Each head several times in a row."""
    batch, heads, length, head = x.shape
    return x[:, :, None].expand(batch, heads, times, length, head).reshape(batch, heads * times, length, head)


def written_out(static: bool = True, *, softcap: float | None = None, returned: bool = False) -> Case:
    """Attention in torch on heads that one linear gives head by head, with a mask for the keys of a cache and of the tokens."""

    def forward(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        batch, length, _ = x.shape
        q, k, v = m.qkv(m.before(x)).view(batch, length, HEADS, 3 * HEAD).transpose(1, 2).chunk(3, dim=-1)
        past = [torch.cat((p, p * 0.5), 1) for p in past_of(x)]
        k, v = (torch.cat(pair, dim=-2) for pair in zip(past, (k, v), strict=True))
        scores = torch.matmul(q, k.transpose(2, 3)) * 0.3
        scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
        mask = torch.cat((x[..., :1], x[..., 1:2]), 1).transpose(1, 2).unsqueeze(1)
        weights = F.softmax(scores + mask, dim=-1, dtype=torch.float32)
        core = torch.matmul(weights, v).transpose(1, 2).contiguous()
        x = x + m.out(core.reshape(batch, length, -1))
        return (x, k, v, weights) if returned else (x, k, v)

    return Case(forward, qkv=linear(WIDTH, 3 * WIDTH, static=static), out=linear(static=static), before=RMSNorm(WIDTH))


DECODER_CASES: dict[str, Callable[[], Case]] = {
    f"{name} {'static' if static else 'dynamic'}": (lambda static=static, given=given: decoder(static, **given))
    for name, given in {
        "decoder step": {},
        "decoder step as of Gemma": {"plus_one": True, "activation": lambda x: F.gelu(x, approximate="tanh")},
        "decoder step with neighbours": {"rotate": rotate_neighbours, "turned": HEAD // 2, "head_norms": False},
        "decoder without cache": {"cached": False, "turned": HEAD // 2},
        "decoder with scaled queries": {"factor": 0.3, "head_norms": False, "flat": True},
    }.items()
    for static in (True, False)
} | {
    f"attention written out {'static' if static else 'dynamic'}": lambda static=static: written_out(
        static, softcap=2.0, returned=static
    )
    for static in (True, False)
}
"""Every pass is run on each of these too."""
