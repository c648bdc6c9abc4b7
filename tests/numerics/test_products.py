"""Products of two activations: the definition against plain integers, the operator against the definition, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from optimum_int8 import numerics
from optimum_int8.operators import registry
from optimum_int8.operators import scores as int8_scores

SHAPES = [(1, 1, 1), (7, 9, 31), (16, 33, 64), (3, 5, 1024), (3, 5, 1040)]
"""Queries, keys, and their width, below and above what float32 sums exactly."""


def rows(length: int, width: int, seed: int) -> Tensor:
    x = torch.randn(2, 3, length, width, generator=torch.Generator().manual_seed(seed))
    x[0, 0, 0] = 0.0  # a row without a range
    return x


def plain(query: Tensor, key: Tensor, query_scale: Tensor, key_scale: Tensor) -> Tensor:
    """With Python's integers for one pair of matrices."""
    q, k = (x.to(torch.int64) - 128 for x in (query[1, 2], key[1, 2]))
    sums = (q[:, None, :] * k[None, :, :]).sum(-1).to(torch.float32)
    a, b = (s if s.dim() == 0 else s[1, 2] for s in (query_scale, key_scale))
    return sums * (a.unsqueeze(-1) * b if a.dim() else a * b)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize(("queries", "keys", "width"), SHAPES)
def test_the_operator_is_the_definition(
    queries: int, keys: int, width: int, static: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key = rows(queries, width, 1), rows(keys, width, 2)
    scales = (torch.tensor(0.03), torch.tensor(0.02)) if static else (None, None)
    quantized = [numerics.symmetric_rows(x, s) for x, s in zip((query, key), scales, strict=True)]
    expected = numerics.scores(*(q for q, _ in quantized), *(s for _, s in quantized))
    assert torch.equal(expected[1, 2], plain(*(q for q, _ in quantized), *(s for _, s in quantized)))
    found = torch.ops.optimum_int8.scores(query, key, *scales)
    assert torch.equal(found, expected) and found.dtype == torch.float32
    monkeypatch.setattr(registry, "library", lambda: None)
    assert torch.equal(int8_scores(query, key, *scales), expected)


def test_the_error_is_that_of_the_grids() -> None:
    query, key = rows(9, 64, 3), rows(11, 64, 4)
    exact = query @ key.transpose(-1, -2)
    found = torch.ops.optimum_int8.scores(query, key, None, None)
    steps = [numerics.symmetric_row_scale(x) / 2 for x in (query, key)]
    bound = steps[0].unsqueeze(-1) * key.abs().sum(-1).unsqueeze(-2) + steps[1].unsqueeze(-2) * query.abs().sum(
        -1
    ).unsqueeze(-1)
    bound = bound + 64 * steps[0].unsqueeze(-1) * steps[1].unsqueeze(-2)
    assert bool(((found - exact).abs() <= bound * 1.0001 + 1e-6).all())


def test_leading_axes_broadcast() -> None:
    query, key = rows(4, 8, 5), rows(6, 8, 6)[:1]
    found = torch.ops.optimum_int8.scores(query, key, None, None)
    assert torch.equal(found, torch.ops.optimum_int8.scores(query, key.expand(2, -1, -1, -1), None, None))


def test_sums_of_the_largest_values_are_exact() -> None:
    width = numerics.MAX_FLOAT_REDUCTION
    query, key = torch.zeros(1, width, dtype=torch.uint8), torch.zeros(1, width, dtype=torch.uint8)
    key[0, 0] = 1  # -127 instead of -128: an odd sum just below 2**24
    one = torch.tensor(1.0)
    assert float(numerics.scores_in_float(query, key, one, one)) == 128 * (128 * width - 1)
    assert torch.equal(*(f(query, key, one, one) for f in (numerics.scores, numerics.scores_in_float)))
