"""Rows of a cache grow in place, and no tensor's values ever change."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from optimum_int8.kernels.growing import grown, grown_heads


def append(rows: Tensor, *values: float) -> Tensor:
    """As the kernel does: copies the earlier rows where they are elsewhere."""
    longer = grown(rows, len(values))
    if longer.data_ptr() != rows.data_ptr():
        longer[:, : rows.shape[1]] = rows
    for i, value in enumerate(values):
        longer[:, rows.shape[1] + i] = value
    return longer


def column(rows: Tensor) -> list[float]:
    return rows[0, :, 0].tolist()


def test_grows_in_place_until_the_room_is_filled() -> None:
    rows = append(torch.zeros(1, 3, 8), 1.0)
    begin = rows.data_ptr()
    places = set()
    for value in range(2, 100):
        rows = append(rows, float(value))
        places.add(rows.data_ptr())
    assert column(rows) == [0.0, 0.0, 0.0, *map(float, range(1, 100))]
    assert begin in places and len(places) < 6


def test_a_second_continuation_does_not_touch_the_first() -> None:
    prompt = append(torch.zeros(1, 2, 4), 1.0)
    first = append(prompt, 2.0, 3.0)
    second = append(prompt, 4.0)
    third = append(second, 5.0)
    assert column(prompt) == [0.0, 0.0, 1.0]
    assert column(first) == [0.0, 0.0, 1.0, 2.0, 3.0]
    assert column(third) == [0.0, 0.0, 1.0, 4.0, 5.0]


def test_cropped_rows_begin_anew() -> None:
    rows = append(append(torch.zeros(1, 1, 4), 1.0, 2.0), 3.0)
    cropped = rows[:, :2]
    assert column(append(cropped, 9.0)) == [0.0, 1.0, 9.0]
    assert column(rows) == [0.0, 1.0, 2.0, 3.0]


def test_rows_without_the_first_grow_too() -> None:
    rows = append(torch.zeros(1, 1, 4), 1.0, 2.0)
    tail = rows[:, 1:]
    assert column(append(tail, 3.0)) == [1.0, 2.0, 3.0]
    assert column(append(rows, 4.0)) == [0.0, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, torch.clone])
def test_copies_are_independent(duplicate: object) -> None:
    rows = append(torch.zeros(1, 1, 4), 1.0)
    other = duplicate(rows)  # type: ignore[operator]
    longer = append(other, 2.0)
    assert column(append(rows, 3.0)) == [0.0, 1.0, 3.0]
    assert column(longer) == [0.0, 1.0, 2.0]


def test_several_sequences_are_copied() -> None:
    rows = torch.arange(12.0).view(2, 3, 2)
    longer = append(append(rows, 1.0), 2.0)
    assert torch.equal(longer[:, :3], rows) and longer.shape == (2, 5, 2) and longer.is_contiguous()


def test_memory_of_others_is_no_buffer() -> None:
    whole = torch.zeros(1, 64, 4)
    rows = whole[:, 8:16]
    assert append(rows, 1.0).data_ptr() != rows.data_ptr()
    assert whole.eq(0).all()


@pytest.mark.parametrize("batch", [1, 2])
def test_heads_grow_as_their_rows_do(batch: int) -> None:
    heads = torch.arange(batch * 24.0).view(batch, 3, 2, 4).transpose(1, 2)
    expected = heads
    for length in (1, 2, 1):
        given, longer = grown_heads(heads, length)
        assert torch.equal(given, heads) and longer.shape == (batch, 2, heads.shape[2] + length, 4)
        if longer.data_ptr() != given.data_ptr():
            longer[:, :, : heads.shape[2]] = given
        new = torch.randn(batch, 2, length, 4)
        longer[:, :, heads.shape[2] :] = new
        expected = torch.cat((expected, new), 2)
        assert torch.equal(longer, expected)
        assert longer.transpose(1, 2).flatten(2).data_ptr() == longer.data_ptr()
        heads = longer


def test_heads_that_lie_otherwise_are_copied() -> None:
    heads = torch.randn(1, 2, 3, 4)
    given, longer = grown_heads(heads, 1)
    assert torch.equal(given, heads) and given.data_ptr() != heads.data_ptr()
    assert given.transpose(1, 2).flatten(2).data_ptr() == given.data_ptr() and longer.shape == (1, 2, 4, 4)
