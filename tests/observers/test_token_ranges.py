"""`TokenRanges` against its definition: bits that the average token loses to the range of all."""

from __future__ import annotations

import math

import pytest
import torch

from optimum_int8.observers import TokenRanges


def lost_bits(x: torch.Tensor, low: float, high: float) -> float:
    """Plain definition, token by token."""
    lost = []
    for row in x.reshape(-1, x.shape[-1]):
        span = max(float(row.max()), 0.0) - min(float(row.min()), 0.0)
        if span:
            lost.append(math.log2((high - low) / span))
    return sum(lost) / len(lost)


def test_the_definition_whatever_the_batches() -> None:
    x = (
        torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 2.0, 30.0, 0.1])[:, None, None]
    )
    x[1, 2] = 0.0
    tokens = TokenRanges()
    for part in (x[:1], x[1:]):
        tokens.observe(part)
    assert tokens.tokens == 35
    assert tokens.lost_bits(-50.0, 70.0) == pytest.approx(lost_bits(x, -50.0, 70.0))


def test_padding_does_not_count() -> None:
    x = torch.tensor([[[-1.0, 1.0], [-100.0, 100.0]]])
    tokens = TokenRanges()
    tokens.observe(x, torch.tensor([[True, False]]))
    assert tokens.lost_bits(-4.0, 4.0) == 2.0


def test_one_sided_tokens_reach_to_zero() -> None:
    tokens = TokenRanges()
    tokens.observe(torch.tensor([[2.0, 4.0], [-4.0, -3.0]]))
    assert tokens.lost_bits(-4.0, 4.0) == 1.0


def test_nothing_seen_loses_nothing() -> None:
    tokens = TokenRanges()
    tokens.observe(torch.zeros(3, 4))
    assert tokens.lost_bits(-1.0, 1.0) == 0.0
