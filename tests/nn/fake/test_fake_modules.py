"""Fake-quantized modules beside the INT8 modules made of the same weights and ranges: equal up to float rounding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.bart.modeling_bart import BartScaledWordEmbedding
from transformers.pytorch_utils import Conv1D

from optimum_int8.nn import Int8Attention, Int8Embedding, Int8Linear
from optimum_int8.nn.fake import (
    FakeQuantize,
    FakeQuantizedAttention,
    fake_quantize_embedding,
    fake_quantize_linear,
    unfake_embedding,
    unfake_linear,
)

RANGE = (-2.0, 2.5)


def close(found: Tensor, expected: Tensor) -> bool:
    return bool(((found - expected).abs() <= 2e-6 * expected.abs().max()).all())


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(70, 33), lambda: nn.Linear(70, 33, bias=False), lambda: Conv1D(33, 70)]
)
def test_linear(make: Any, per_channel: bool, bits: int) -> None:
    module, x = make(), torch.randn(3, 9, 70) * 2
    plain, expected = type(module), Int8Linear.from_float(module, RANGE, per_channel, activation_bits=bits)(x)
    parameters = dict(module.named_parameters())
    fake_quantize_linear(module, FakeQuantize(RANGE, bits=bits), per_channel)
    assert isinstance(module, plain)
    assert close(module(x), expected)
    assert all(dict(module.named_parameters())[name] is parameter for name, parameter in parameters.items())
    module(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in parameters.values())
    unfake_linear(module)
    assert type(module) is plain
    assert set(module.state_dict()) == set(parameters)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    "make", [lambda: nn.Embedding(50, 24, 1), lambda: BartScaledWordEmbedding(50, 24, 1, embed_scale=3.0)]
)
def test_embedding(make: Any, per_channel: bool) -> None:
    module, ids = make(), torch.randint(0, 50, (3, 7))
    plain, expected = type(module), Int8Embedding.from_float(module, per_channel)(ids)
    fake_quantize_embedding(module, per_channel)
    assert isinstance(module, plain)
    assert torch.equal(module(ids), expected)
    assert torch.equal(copy.deepcopy(module)(ids), expected)
    module(ids).sum().backward()
    assert module.weight.grad[ids[ids != 1]].abs().min() > 0
    unfake_embedding(module)
    assert type(module) is plain


def cores(bits: int = 8) -> tuple[FakeQuantizedAttention, Int8Attention]:
    ranges = {"query": (-3.0, 2.0), "key": (-2.0, 2.0), "value": (-1.5, 2.5)}
    fake = FakeQuantizedAttention(**{name: FakeQuantize(r, True, bits) for name, r in ranges.items()}).eval()
    return fake, Int8Attention.from_ranges(ranges, bits)


MASKS = {
    "none": None,
    "padding": (torch.arange(13) < torch.tensor([[13], [6]]))[:, None, None, :],
    "nothing left": torch.zeros(2, 1, 1, 13, dtype=torch.bool),
    "additive": torch.where(torch.rand(2, 1, 13, 13) < 0.5, 0.0, torch.finfo(torch.float32).min),
}


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize(("mask", "causal"), [*((name, False) for name in MASKS), ("none", True)])
def test_attention(mask: str, causal: bool, bits: int) -> None:
    """Exponentials differ by 1e-6, so that one probability in some thousand lands on the neighbouring level."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 13, 16) for heads in (4, 2, 2))
    fake, int8 = cores(bits)
    found, expected = (core(query, key, value, MASKS[mask], 0.25, causal) for core in (fake, int8))
    difference = (found - expected).abs()
    assert found.shape == (2, 13, 4, 16)
    assert difference.max() <= 2.5 / 255
    assert (difference < 1e-5).float().mean() > 0.98


def test_attention_trains_everything_it_reads() -> None:
    query, key, value = (torch.randn(2, 4, 9, 16, requires_grad=True) for _ in range(3))
    fake, _ = cores()
    assert fake.train().query.observing
    fake(query, key, value, None, 0.25, False, dropout=0.5).square().sum().backward()
    assert all(float(x.grad.abs().sum()) > 0 for x in (query, key, value))
    assert fake.value.take_seen() is not None
