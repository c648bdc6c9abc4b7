"""Batches by length: every example once, short padding, results in the right order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimum_int8.errors import ConfigError
from optimum_int8.quantizers.steps.batching import length_batches, run_batches


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 9), st.one_of(st.none(), st.integers(0, 5)))
def test_every_example_once_beside_its_like(lengths: list[int], size: int, seed: int | None) -> None:
    batches = length_batches(lengths, size, seed=seed)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)
    ranges = sorted((min(lengths[i] for i in b), max(lengths[i] for i in b)) for b in batches)
    assert all(before[1] <= after[0] for before, after in zip(ranges, ranges[1:], strict=False))


def test_longest_first_unless_shuffled() -> None:
    lengths = list(range(100))
    assert length_batches(lengths, 10)[0] == list(range(90, 100))
    shuffled = length_batches(lengths, 10, seed=0)
    assert shuffled == length_batches(lengths, 10, seed=0)
    assert shuffled not in (length_batches(lengths, 10), length_batches(lengths, 10)[::-1])


def test_batch_size_below_one() -> None:
    with pytest.raises(ConfigError, match="batch_size is 0"):
        length_batches([1, 2], 0)


def test_results_in_the_order_of_the_examples() -> None:
    features = [{"input_ids": [value] * (1 + value % 3)} for value in range(10)]
    results = run_batches(
        features,
        lambda group: {"first": torch.tensor([f["input_ids"][0] for f in group])},
        lambda batch: batch["first"].tolist(),
        batch_size=4,
        description="",
    )
    assert results == list(range(10))


def test_a_missing_result_is_noticed() -> None:
    with pytest.raises(ValueError, match="zip"):
        run_batches([{"a": 1}, {"a": 2}], lambda g: {}, lambda b: [1], batch_size=2, description="")
