"""`Int8Embedding`: rows of an int8 table."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from optimum_int8 import numerics
from optimum_int8.nn import Int8Embedding


def make(rows: int = 11, dim: int = 33) -> tuple[nn.Embedding, Int8Embedding]:
    torch.manual_seed(0)
    table = nn.Embedding(rows, dim, padding_idx=0)
    return table, Int8Embedding.from_float(table)


def test_equals_the_definition_and_the_table_to_half_a_step() -> None:
    table, int8 = make()
    ids = torch.tensor([[0, 3, 10], [3, 3, 1]])
    q, scale = numerics.quantize_weight(table.weight)
    assert torch.equal(int8(ids), numerics.embedding(ids, q, scale))
    half = (table.weight.abs().amax(1) / 127 / 2)[ids].unsqueeze(-1)
    assert ((int8(ids) - table(ids)).abs() <= half * 1.0001).all()
    assert (int8(torch.tensor([0])) == 0).all()  # the padding row is all zero


def test_stores_table_and_scales() -> None:
    _, int8 = make()
    assert {k: (v.dtype, tuple(v.shape)) for k, v in int8.state_dict().items()} == {
        "weight": (torch.int8, (11, 33, 1)),
        "weight_scale": (torch.float32, (11,)),
    }


def test_an_id_outside_the_table_is_an_error() -> None:
    _, int8 = make()
    for wrong in (-1, 11):
        with pytest.raises(IndexError):
            int8(torch.tensor([[1, wrong]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_answers_in_the_dtype_of_the_model(dtype: torch.dtype) -> None:
    """The norm after it has weights of the model's dtype and takes no other."""
    table, int8 = make()
    ids = torch.tensor([4, 5])
    expected = int8(ids).to(dtype)
    assert torch.equal(int8.to(dtype)(ids), expected)
    assert int8.weight_scale.dtype == torch.float32
    assert Int8Embedding.from_float(table.to(dtype))(ids).dtype == dtype
    assert copy.deepcopy(int8)(ids).dtype == dtype
    assert int8.float()(ids).dtype == torch.float32


def test_moving_between_devices_keeps_the_dtype() -> None:
    _, int8 = make()
    assert int8.to("meta").dtype == torch.float32
    assert int8.weight.device.type == "meta"


def test_integer_ids_of_any_width_and_shape() -> None:
    _, int8 = make()
    ids = torch.tensor([1, 2, 3])
    assert torch.equal(int8(ids.int()), int8(ids))
    assert torch.equal(int8(ids[0]), int8(ids)[0])
    assert int8(ids[:0]).shape == (0, 33)
