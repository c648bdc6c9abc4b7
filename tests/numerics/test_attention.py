"""`numerics.int8_attention`: within the error bound of its quantization, and what holds exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from optimum_int8 import numerics
from optimum_int8.numerics import LOG2E, softmax_weight

SHAPE = (2, 4, 2, 9, 23, 16)
"""batch, heads, key heads, queries, keys, head size."""


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, kv_heads, queries, keys, head = SHAPE
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, heads, queries, head), (batch, kv_heads, keys, head), (batch, kv_heads, keys, head)
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


def quantized(xs: tuple[Tensor, ...], dynamic: bool) -> tuple[list[Tensor], list[Tensor]]:
    scales = [numerics.symmetric_row_scale(x) if dynamic else x.abs().max() / 127 for x in xs]
    values = [
        numerics.quantize_affine(x, s.unsqueeze(-1) if dynamic else s, 128) for x, s in zip(xs, scales, strict=True)
    ]
    return values, scales


def int8_attention(xs: tuple[Tensor, ...], dynamic: bool, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    values, scales = quantized(xs, dynamic)
    return numerics.int8_attention(*values, *scales, SHAPE[-1] ** -0.5, mask, causal)


def error_bound(xs: tuple[Tensor, ...], dynamic: bool, hidden: Tensor) -> Tensor:
    """Largest error of each query's result, from half a step of each quantized number.

    A score moves by at most d, so that probabilities move by expm1(2 d) in all; each of the keys' exponentials is rounded to
    1/255 of the row's largest weight; each value by half a step.
    """
    groups = SHAPE[1] // SHAPE[2]
    (q, k, v), scaling = xs, SHAPE[-1] ** -0.5
    half = [
        0.5 * (s if s.dim() else s.expand(x.shape[:-1])) for s, x in zip(quantized(xs, dynamic)[1], xs, strict=True)
    ]
    k, v, half[1], half[2] = (t.repeat_interleave(groups, 1) for t in (k, v, half[1], half[2]))
    sums = q.abs().sum(-1).unsqueeze(-1) * half[1].unsqueeze(-2) + half[0].unsqueeze(-1) * k.abs().sum(-1).unsqueeze(-2)
    d = scaling * (sums + SHAPE[-1] * half[0].unsqueeze(-1) * half[1].unsqueeze(-2))
    d = d.masked_fill(hidden, 0.0).amax(-1)
    scores = (q @ k.transpose(-1, -2) * scaling).masked_fill(hidden, -math.inf)
    total = (scores - scores.amax(-1, keepdim=True)).exp().sum(-1) * (-2 * d).exp()
    seen = (~hidden).sum(-1)
    largest, step = v.abs().amax((-1, -2)).unsqueeze(-1), half[2].amax(-1).unsqueeze(-1)
    return (largest + step) * (torch.expm1(2 * d) + seen * 0.5 / 255 / total) + step + 1e-5


def masks() -> dict[str, Tensor | None]:
    batch, heads, _, queries, keys, _ = SHAPE
    some = torch.rand(batch, heads, queries, keys, generator=torch.Generator().manual_seed(5)) > 0.5
    some[..., 0] = True
    return {
        "none": None,
        "bool": some,
        "float": torch.where(some, 0.0, torch.finfo(torch.float32).min),
        "padding": (torch.arange(keys) < torch.tensor([[keys], [7]]))[:, None, None],
    }


def hidden_keys(mask: Tensor | None, causal: bool) -> Tensor:
    queries, keys = SHAPE[3:5]
    seen = torch.ones(SHAPE[0], SHAPE[1], queries, keys, dtype=torch.bool)
    if mask is not None:
        seen &= mask if mask.dtype == torch.bool else mask == 0
    return ~(seen.tril(keys - queries) if causal else seen)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "padding"])
def test_close_to_float(mask: str, causal: bool, dynamic: bool) -> None:
    for seed in range(5):
        xs = inputs(seed)
        hidden = hidden_keys(masks()[mask], causal)
        expected = torch.nn.functional.scaled_dot_product_attention(*xs, attn_mask=~hidden, enable_gqa=True)
        bound = error_bound(xs, dynamic, hidden)
        assert bound.max() < 0.5 * xs[2].abs().max(), "a bound of the values' own size shows nothing"
        error = (int8_attention(xs, dynamic, masks()[mask], causal) - expected).abs().amax(-1)
        assert (error <= bound).all()
        assert error.max() < 0.12, "in practice it is far below the bound"


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_added_mask_moves_the_scores(dynamic: bool) -> None:
    xs, mask = inputs(), torch.randn(1, SHAPE[1], SHAPE[3], SHAPE[4]) * 2
    expected = torch.nn.functional.scaled_dot_product_attention(*xs, attn_mask=mask, enable_gqa=True)
    assert (int8_attention(xs, dynamic, mask) - expected).abs().max() < 0.15


def test_literal_numbers() -> None:
    """Two keys with scores 0 and ln 2: probabilities 1/3 and 2/3, held as 128 (127.5 to even) and 255 in 255ths."""
    ln2 = float(torch.tensor(math.log(2.0)))
    q = torch.tensor([[[[129]]]], dtype=torch.uint8)
    k = torch.tensor([[[[128], [129]]]], dtype=torch.uint8)
    v = torch.tensor([[[[128 + 100, 128], [128 - 50, 128 + 1]]]], dtype=torch.uint8)
    one = torch.tensor(1.0)
    found = numerics.int8_attention(q, k, v, one, one, torch.tensor(0.5), ln2)
    share = 127 if float(softmax_weight(torch.tensor(-ln2) * LOG2E)) < 127.5 else 128
    expected = [(share * 100 - 255 * 50) * 0.5 / 255 / 1.5, 255 * 0.5 / 255 / 1.5]
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dynamic", [False, True])
def test_constant_values_come_out(dynamic: bool) -> None:
    """Equal scores: whatever the keys' number, the mean of equal values is the value."""
    q, k, v = inputs()
    constant = torch.randn(SHAPE[0], SHAPE[2], 1, SHAPE[5]).expand_as(v)
    values, scales = quantized((q * 0, k, constant), dynamic)
    scale = scales[2].unsqueeze(-1) if dynamic else scales[2]
    expected = numerics.dequantize_affine(values[2], scale, 128)[:, :, :1].repeat_interleave(SHAPE[1] // SHAPE[2], 1)
    found = int8_attention((q * 0, k, constant), dynamic)
    assert torch.allclose(found, expected.expand_as(found), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masked_keys_do_not_matter(kind: str, dynamic: bool) -> None:
    q, k, v = inputs()
    keys = SHAPE[4]
    seen = (torch.arange(keys) < 11).view(1, 1, 1, keys)
    mask = seen if kind == "bool" else torch.where(seen, 0.0, torch.finfo(torch.float32).min)
    values, scales = quantized((q, k, v), dynamic)
    first = numerics.int8_attention(*values, *scales, 0.25, mask)
    for t in values[1:]:
        t[:, :, 11:] = torch.randint(0, 256, t[:, :, 11:].shape, dtype=torch.uint8)
    for s in scales[1:]:
        if dynamic:
            s[:, :, 11:] *= 7.0
    assert torch.equal(numerics.int8_attention(*values, *scales, 0.25, mask), first)
    short = [t[:, :, :11] if t.dim() > 2 else t for t in (*values[1:], *scales[1:])]
    assert torch.equal(numerics.int8_attention(values[0], *short[:2], scales[0], *short[2:], 0.25), first)


@pytest.mark.parametrize("dynamic", [False, True])
def test_causal(dynamic: bool) -> None:
    """Query i sees keys up to i + keys - queries, as the mask that says so; later keys change nothing."""
    xs, (queries, keys) = inputs(), SHAPE[3:5]
    values, scales = quantized(xs, dynamic)
    found = numerics.int8_attention(*values, *scales, 0.25, causal=True)
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    assert torch.equal(found, numerics.int8_attention(*values, *scales, 0.25, mask))
    assert not torch.equal(found, numerics.int8_attention(*values, *scales, 0.25))
    values[1][:, :, -1], values[2][:, :, -1] = 0, 255
    changed = numerics.int8_attention(*values, *scales, 0.25, causal=True)
    assert torch.equal(changed[:, :, :-1], found[:, :, :-1]) and not torch.equal(changed[:, :, -1], found[:, :, -1])


def test_one_key() -> None:
    q, k, v = (torch.randint(0, 256, (1, 1, n, 4), dtype=torch.uint8) for n in (3, 1, 1))
    found = numerics.int8_attention(q, k, v, torch.tensor(0.1), torch.tensor(0.1), torch.tensor(0.5), 0.5)
    assert torch.allclose(found, numerics.dequantize_affine(v, 0.5, 128).expand_as(found), rtol=1e-6)


@pytest.mark.parametrize("dynamic", [False, True])
def test_values_that_are_all_zero(dynamic: bool) -> None:
    q, k, v = inputs()
    values, scales = quantized((q, k, v * 0 if dynamic else v), dynamic)
    values[2][:] = 128
    assert torch.equal(numerics.int8_attention(*values, *scales, 0.25), torch.zeros(q.shape))
