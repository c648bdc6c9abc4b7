"""3x3 convolutions by Winograd's F(4x4, 3x3) (csrc/ops/winograd.h) are the exact sums: tiles at every border, ends of every range, threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimum_int8 import kernels, numerics
from optimum_int8.numerics import Window

ISAS = [isa for isa in kernels.info()["isa_found"] if isa not in ("portable", "amx")]
SAME = (1, 1, 1, 1)

pytestmark = pytest.mark.skipif(not ISAS, reason="no instruction set here takes this way")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def wrong(x: Tensor, weight: Tensor, padding: tuple[int, int, int, int] = SAME, zero_point: int = 77) -> list[str]:
    """Instruction sets whose sums (scales of 1, no bias) are not those of the definition, with how many are not."""
    window, grid = Window(3, 3, 1, 1, *padding), (torch.tensor(1.0), torch.tensor(zero_point, dtype=torch.int32))
    ones = torch.ones(weight.shape[0])
    expected = numerics.conv_int32(x, zero_point, weight, window).to(torch.float32)
    packed, sums = kernels.pack_conv(weight, 1)
    told = []
    for isa in ISAS:
        with kernels.use_isa(isa):
            found = torch.ops.optimum_int8.conv(x, *grid, packed, sums, ones, None, list(window), 1)
        if not torch.equal(found, expected):
            told.append(f"{isa}: {int((found != expected).sum())} of {found.numel()}")
    return told


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def weights(*shape: int) -> Tensor:
    return torch.randint(-127, 128, (*shape, 3, 3), dtype=torch.int8)


@pytest.mark.parametrize("height", [8, 9, 10, 11, 13, 16, 17])
@pytest.mark.parametrize("width", [8, 9, 14, 19])
def test_borders_of_tiles(height: int, width: int) -> None:
    for padding in (SAME, (0, 0, 0, 0), (2, 0, 1, 2)):
        assert wrong(pixels(1, height, width, 32), weights(32, 32), padding) == [], padding


@pytest.mark.parametrize("channels", [16, 48, 128, 144, 272, 400])
@pytest.mark.parametrize("outer", [1, 16, 17, 31, 33, 64, 100])
def test_segments_and_panels(channels: int, outer: int) -> None:
    assert wrong(pixels(2, 13, 12, channels), weights(outer, channels)) == []


@pytest.mark.parametrize("pixel", [0, 255])
@pytest.mark.parametrize("weight", [-127, 127])
def test_largest_sums(pixel: int, weight: int) -> None:
    x = torch.full((1, 16, 16, 256), pixel, dtype=torch.uint8)  # two whole segments
    assert wrong(x, torch.full((32, 256, 3, 3), weight, dtype=torch.int8), zero_point=255 - pixel) == []


def test_largest_transformed_values() -> None:
    """Pixels with the signs of each row of B by each other, and weights with the signs of each row of G by each other."""
    of_b = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0]]
    signs_b = torch.tensor([*of_b, [0, 4, 0, -5, 0, 1]]).sign()
    signs_g = torch.tensor([[1, 1, 1], [1, -1, 1]])
    weight = torch.stack([127 * a.outer(b) * s for a in signs_g for b in signs_g for s in (-1, 1)]).to(torch.int8)
    for a in signs_b:
        for b in signs_b:
            for sign in (-1, 1):
                tile = torch.where(a.outer(b) * sign > 0, 255, 0).to(torch.uint8)
                image = tile[:4].repeat(4, 1)[:14].T[:4].repeat(4, 1)[:14].T.clone()
                image[:6, :6] = tile  # the first tile as it is, its neighbours what overlaps
                x = image.view(1, 14, 14, 1).expand(1, 14, 14, 144).contiguous()
                assert wrong(x, weight.unsqueeze(1).expand(-1, 144, 3, 3).contiguous(), (0, 0, 0, 0)) == []


@pytest.mark.parametrize("outer", [20, 64, 160])
def test_threads_divide_channels_and_tiles(outer: int) -> None:
    x, weight = pixels(1, 37, 35, 64), weights(outer, 64)  # 90 tiles: more than a block
    for threads in (1, 2, 3, 5, 8):
        torch.set_num_threads(threads)
        assert wrong(x, weight) == [], threads


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 24), st.integers(1, 24), st.sampled_from([16, 32, 80, 144]), st.integers(1, 70),
    st.tuples(*[st.integers(1, 3)] * 4), st.integers(1, 4), st.integers(0, 255),
)  # fmt: skip
def test_any_size(
    height: int, width: int, channels: int, outer: int, padding: tuple[int, int, int, int], threads: int, zero: int
) -> None:
    torch.set_num_threads(threads)
    assert wrong(pixels(1, height, width, channels), weights(outer, channels), padding, zero) == []
