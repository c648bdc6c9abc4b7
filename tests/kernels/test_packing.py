"""Weight panels against their definition, one number at a time."""

from __future__ import annotations

import pytest
import torch

from optimum_int8 import kernels
from tests.operators.cases import WIDTHS


def test_where_each_number_lies() -> None:
    weight = torch.randint(-127, 128, (70, 130), dtype=torch.int8)
    panels = kernels.pack(weight)
    assert panels.shape == (3, 3, 2, 16, 16, 4)
    for row, column in ((0, 0), (1, 0), (0, 1), (15, 3), (16, 0), (31, 63), (32, 64), (69, 129), (47, 77)):
        panel, half, channel = row // 32, row % 32 // 16, row % 16
        step, group, four = column // 64, column % 64 // 4, column % 4
        assert panels[panel, step, half, group, channel, four] == weight[row, column], (row, column)


@pytest.mark.parametrize("rows", WIDTHS)
@pytest.mark.parametrize("columns", WIDTHS)
def test_round_trip(rows: int, columns: int) -> None:
    weight = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
    panels = kernels.pack(weight)
    assert torch.equal(kernels.unpack(panels, rows, columns), weight)
    assert panels.sum(dtype=torch.int64) == weight.sum(dtype=torch.int64), "padding must be zero"
    sums = kernels.row_sums(weight)
    assert sums.dtype == torch.int32 and len(sums) == (rows + 31) // 32 * 32
    assert sums[:rows].tolist() == [sum(row) for row in weight.tolist()] and not sums[rows:].any()


def test_outputs_side_by_side_are_panels_side_by_side() -> None:
    first, second = (torch.randint(-127, 128, (64, 100), dtype=torch.int8) for _ in range(2))
    both = kernels.pack(torch.cat([first, second]))
    assert torch.equal(both, torch.cat([kernels.pack(first), kernels.pack(second)]))


@pytest.mark.parametrize("columns", [1, 63, 64, 65])
def test_rows_as_the_kernels_want_them(columns: int) -> None:
    x = torch.randint(0, 256, (3, 5, columns), dtype=torch.uint8)
    laid = kernels.as_rows(x)
    assert torch.equal(laid, x)
    step = (columns + 63) // 64 * 64
    assert laid.stride() == (5 * step, step, 1)
    room = laid.untyped_storage().nbytes() - laid.storage_offset()
    assert room >= (15 + 32) * step, "tiles reach past the last row"
    assert kernels.as_rows(laid) is laid
    assert torch.equal(kernels.as_rows(laid[1:]), x[1:])
    assert torch.equal(kernels.as_rows(laid.transpose(0, 1)), x.transpose(0, 1))


@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (33, 65)])
@pytest.mark.parametrize("offset", [1, 2, 4])
def test_a_part_of_another_tensor(rows: int, columns: int, offset: int) -> None:
    weight = torch.randint(-127, 128, (rows * columns + offset,), dtype=torch.int8)[offset:].view(rows, columns)
    assert torch.equal(kernels.pack(weight), kernels.pack(weight.clone()))


@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (33, 65)])
def test_packed_weights_are_no_views(rows: int, columns: int) -> None:
    """Merged projections give packed weights another storage by `.data`; with a view, nothing can be captured afterwards."""
    weight = torch.ones(rows, columns, dtype=torch.int8)
    assert not kernels.pack(weight)._is_view()
    assert not kernels.pack_conv(weight[:, :, None, None], 1)[0]._is_view()
    assert not kernels.pack_conv(weight[:, :1, None, None].expand(rows, 1, 3, 3), rows)[0]._is_view()


@pytest.mark.parametrize("columns", [1, 64, 768, 40_000])
def test_sums_of_the_largest_rows(columns: int) -> None:
    """No kernel that adds pairs in 16 bits may saturate."""
    weight = torch.stack([torch.full((columns,), value, dtype=torch.int8) for value in (127, -127, -128, 1)])
    assert kernels.row_sums(weight)[:4].tolist() == [127 * columns, -127 * columns, -128 * columns, columns]
