"""Sums and concatenations against plain arithmetic; a part on the result's grid keeps its bytes."""

from __future__ import annotations

import torch

from optimum_int8 import numerics


def test_a_sum_is_within_half_a_step_of_the_exact_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, 256, (40, 33), generator=generator, dtype=torch.uint8) for _ in range(2))
    exact = (x.double() - 100) * 0.02 + (y.double() - 7) * 0.005
    grids = torch.tensor(0.02), 100, torch.tensor(0.005), 7
    torch.testing.assert_close(numerics.add(x, *grids[:2], y, *grids[2:]), exact.float(), rtol=1e-6, atol=1e-6)
    scale, zero_point = torch.tensor(0.03), torch.tensor(120, dtype=torch.int32)
    q = numerics.add_quantized(x, *grids[:2], y, *grids[2:], scale, zero_point)
    inside = (exact > -120 * 0.03) & (exact < 135 * 0.03)
    assert inside.any() and not inside.all()
    assert (numerics.dequantize_affine(q, scale, zero_point).double() - exact)[inside].abs().max() <= 0.015 + 1e-6


def test_a_part_on_the_results_grid_keeps_its_bytes() -> None:
    q = torch.arange(256, dtype=torch.uint8)
    scales = torch.logspace(-37, 36, 3001)
    for scale in (*scales[:: len(scales) // 300], torch.tensor(2.0**-126), torch.tensor(1 / 3)):
        for zero_point in (0, 1, 128, 255):
            grid = scale, torch.tensor(zero_point, dtype=torch.int32)
            assert torch.equal(numerics.cat_quantized([q], [grid[0]], [grid[1]], *grid), q)
