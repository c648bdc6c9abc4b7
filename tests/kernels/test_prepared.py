"""The second form of a weight that AVX2 multiplies: clamped panels, with what was clamped apart. Results do not depend on it."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor

from optimum_int8 import kernels
from optimum_int8.kernels.native import ISAS
from optimum_int8.kernels.packing_conv import pack_conv
from optimum_int8.kernels.prepared import prepared_weight, used_once
from optimum_int8.numerics import Window

AVX2 = ISAS.index("avx2")

pytestmark = pytest.mark.skipif("avx2" not in kernels.info()["isa_found"], reason="the clamped form is AVX2's")


def normal(*shape: int, deviation: float = 30.0) -> Tensor:
    """int8 weights as trained ones are distributed: few fours of them do not fit int16."""
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(*shape, generator=generator) * deviation).round().clamp(-127, 127).to(torch.int8)


def hostile(*shape: int) -> Tensor:
    """Small weights but for a few runs of the largest of one sign, where a four exceeds int16 most."""
    weight = normal(*shape, deviation=3.0)
    weight[..., 8:16] = 127
    weight[0] = weight[0].abs().neg()
    weight[1::5, ..., 8:16] = -127
    return weight


def both(rows: int, weight: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor, bool]:
    """A linear on AVX2 and in portable C++, and whether the first had a prepared weight."""
    if x is None:
        x = torch.randint(0, 256, (rows, weight.shape[1]), dtype=torch.uint8)
    panels = kernels.pack(weight)
    grid = torch.tensor(0.01), torch.tensor(77, dtype=torch.int32)
    found = []
    for isa in ("avx2", "portable"):
        with kernels.use_isa(isa):
            arguments = x, *grid, panels, kernels.row_sums(weight), torch.rand(weight.shape[0]).fill_(0.5), None
            found.append(torch.ops.optimum_int8.linear(*arguments))
    return found[0], found[1], prepared_weight(panels, AVX2) is not None


@pytest.mark.parametrize("rows", [1, 5, 6, 7, 15, 16, 17, 31, 32, 33, 38, 70])
@pytest.mark.parametrize("shape", [(32, 256), (70, 513), (33, 1100)])
def test_linear_of_clamped_weights_is_exact(rows: int, shape: tuple[int, int]) -> None:
    for weight in (normal(*shape), hostile(*shape)):
        avx2, portable, prepared = both(rows, weight)
        assert prepared
        assert torch.equal(avx2, portable)


@pytest.mark.parametrize("value", [0, 255])
def test_no_sum_exceeds_int16_at_the_ends_of_the_range(value: int) -> None:
    weight = hostile(64, 512)
    avx2, portable, prepared = both(40, weight, torch.full((40, 512), value, dtype=torch.uint8))
    assert prepared
    assert torch.equal(avx2, portable)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_of_clamped_weights_is_exact(kernel: int, groups: int) -> None:
    weight = normal(72, 256 // groups, kernel, kernel)
    packed, sums = pack_conv(weight, groups)
    x = torch.randint(0, 256, (2, 9, 11, 256), dtype=torch.uint8)
    window = Window(kernel, kernel, 1, 1, kernel // 2, kernel // 2, kernel // 2, kernel // 2, 1, 1)
    found = []
    for isa in ("avx2", "portable"):
        with kernels.use_isa(isa):
            grid = torch.tensor(0.01), torch.tensor(77, dtype=torch.int32)
            found.append(torch.ops.optimum_int8.conv(x, *grid, packed, sums, torch.ones(72), None, window, groups))
    assert prepared_weight(packed, AVX2) is not None
    assert torch.equal(*found)


def test_groups_that_do_not_fit_each_other_are_paired_with_others() -> None:
    """One group of four inputs beside the next: two heavy ones would have to be clamped in every channel."""
    beside = torch.tensor([60, 60, 1, 1], dtype=torch.int8).repeat_interleave(4).repeat(4).expand(64, 64)
    avx2, portable, prepared = both(40, beside.contiguous())
    assert prepared
    assert torch.equal(avx2, portable)
    assert not both(40, torch.full((64, 64), 60, dtype=torch.int8))[2]


def test_weights_that_hardly_fit_are_left_as_they_are() -> None:
    assert prepared_weight(kernels.pack(torch.full((32, 256), 127, dtype=torch.int8)), AVX2) is None


def test_made_once_and_anew_after_a_change() -> None:
    panels = kernels.pack(normal(32, 256))
    first = prepared_weight(panels, AVX2)
    assert first is not None and prepared_weight(panels, AVX2) is first
    copied = copy.deepcopy(panels)
    panels.copy_(kernels.pack(normal(32, 256, deviation=20)))
    second, of_copy = prepared_weight(panels, AVX2), prepared_weight(copied, AVX2)
    assert second is not None and of_copy is not None
    assert not torch.equal(second[: len(first)], first[: len(second)])
    assert torch.equal(of_copy, first) and of_copy is not first


def test_other_instruction_sets_read_the_panels() -> None:
    assert prepared_weight(kernels.pack(normal(32, 256)), ISAS.index("portable")) is None


def test_panels_used_once_are_not_prepared() -> None:
    assert prepared_weight(used_once(kernels.pack(normal(32, 256))), AVX2) is None


def test_neither_pickled_nor_copied_with_the_tensor() -> None:
    panels = kernels.pack(normal(32, 256))
    assert prepared_weight(panels, AVX2) is not None
    saved = io.BytesIO()
    torch.save(panels, saved)
    assert len(saved.getvalue()) < 1.5 * panels.numel()
    assert not vars(copy.deepcopy(panels))
