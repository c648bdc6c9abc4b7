"""The arithmetic on literal numbers, its properties, and its distance from float32 torch: the bounds that docstrings state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_int8 import numerics

INF, NAN = float("inf"), float("nan")
finite = st.floats(-(2.0**40), 2.0**40, width=32)
scales = st.floats(2.0**-20, 2.0**10, width=32)
zero_points = st.integers(0, 255)
few = settings(max_examples=60, deadline=None)


# -- quantize ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "scale", "zero_point", "q"),
    [
        ([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], 1.0, 10, [10, 12, 12, 10, 8, 8]),  # half to even, before the zero point
        ([0.5, 1.5], 1.0, 11, [11, 13]),
        ([-0.0, 0.0, 1e-45], 0.1, 37, [37, 37, 37]),
        ([1.0, -1.0, 12.7, 13.0, -12.8, -13.0], 0.1, 128, [138, 118, 255, 255, 0, 0]),
        ([1e38, -1e38, INF, -INF, NAN], 1e-3, 128, [255, 0, 255, 0, 0]),
        ([NAN, INF], 1.0, 255, [0, 255]),
        ([], 1.0, 0, []),
    ],
)
def test_quantize_affine(x: list[float], scale: float, zero_point: int, q: list[int]) -> None:
    found = numerics.quantize_affine(torch.tensor(x), scale, zero_point)
    assert found.dtype == torch.uint8 and found.tolist() == q


def test_quantize_multiplies_with_the_reciprocal() -> None:
    """Half-way between two steps, a product and a quotient round apart."""
    scale = torch.tensor(0.3)
    x = (torch.arange(250) + 0.5) * scale
    product = torch.round(x * (torch.tensor(1.0) / scale)).clamp(0, 255)
    assert not torch.equal(product, torch.round(x / scale).clamp(0, 255)), "these numbers tell nothing"
    assert torch.equal(numerics.quantize_affine(x, scale, 0).float(), product)


def test_quantize_broadcasts() -> None:
    q = numerics.quantize_affine(torch.ones(2, 3), torch.tensor([[1.0], [0.5]]), torch.tensor([[0], [100]]))
    assert q.tolist() == [[1, 1, 1], [102, 102, 102]]
    back = numerics.dequantize_affine(q, torch.tensor([[1.0], [0.5]]), torch.tensor([[0], [100]]))
    assert back.dtype == torch.float32 and torch.equal(back, torch.ones(2, 3))


@few
@given(st.lists(finite, min_size=1, max_size=40), scales, zero_points)
def test_equal_to_fake_quantize(values: list[float], scale: float, zero_point: int) -> None:
    x = torch.tensor(values)
    q = numerics.quantize_affine(x, scale, zero_point)
    expected = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)
    assert torch.equal(numerics.dequantize_affine(q, scale, zero_point), expected)


# -- scales ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minimum", "maximum", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, 0),
        (-255.0, 0.0, 1.0, 255),
        (-128.0, 127.0, 1.0, 128),
        (10.0, 510.0, 2.0, 0),  # widened to zero
        (-510.0, -10.0, 2.0, 255),
        (0.0, 0.0, 2.0**-126, 0),
        (0.0, 1e-45, 2.0**-126, 0),
    ],
)
def test_choose_affine_qparams(minimum: float, maximum: float, scale: float, zero_point: int) -> None:
    assert numerics.choose_affine_qparams(minimum, maximum) == (scale, zero_point)


@few
@given(finite, finite)
def test_affine_range_is_covered_and_holds_zero(a: float, b: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    scale, zero_point = numerics.choose_affine_qparams(min(a, b), max(a, b))
    assert scale > 0 and 0 <= zero_point <= 255
    zero = numerics.quantize_affine(torch.zeros(1), scale, zero_point)
    assert zero.item() == zero_point and numerics.dequantize_affine(zero, scale, zero_point).item() == 0.0
    ends = torch.tensor([low, high])
    back = numerics.dequantize_affine(numerics.quantize_affine(ends, scale, zero_point), scale, zero_point)
    assert (back - ends).abs().max() <= scale * (0.5 + 1e-4), "an end lies outside the grid"
    assert scale <= max((high - low) / 255 * (1 + 1e-6), 2.0**-126), "the grid is wider than the range"


@few
@given(st.floats(0, 2.0**100, width=32))
def test_symmetric_scale(absmax: float) -> None:
    scale = numerics.choose_symmetric_scale(absmax)
    assert scale == max(float(np.float32(absmax) / np.float32(127)), 2.0**-126)
    assert numerics.choose_symmetric_scale(127.0) == 1.0


def test_quantize_rows() -> None:
    x = torch.tensor([[0.0, 255.0], [-255.0, 0.0], [0.0, 0.0], [51.0, 25.0], [-2.0, 3.0]])
    q, scale, zero_point = numerics.quantize_rows(x)
    assert q.tolist() == [[0, 255], [0, 255], [0, 0], [255, 125], [0, 255]]
    assert zero_point.dtype == torch.int32 and zero_point.tolist() == [0, 255, 0, 0, 102]
    assert scale[:3].tolist() == [1.0, 1.0, 2.0**-126] and scale[3:].tolist() == pytest.approx([0.2, 5 / 255])


@few
@given(st.integers(1, 70), st.integers(1, 9), st.integers(0, 2**32))
def test_each_row_has_the_grid_of_its_range(width: int, rows: int, seed: int) -> None:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 5
    q, scale, zero_point = numerics.quantize_rows(x)
    for i in range(rows):
        expected = numerics.choose_affine_qparams(float(x[i].min()), float(x[i].max()))
        assert (float(scale[i]), int(zero_point[i])) == expected
        assert torch.equal(q[i], numerics.quantize_affine(x[i], *expected))


def test_symmetric_row_scale() -> None:
    x = torch.tensor([[[127.0, -1.0], [3.0, -254.0]], [[0.0, 0.0], [-1.0, 0.5]]])
    assert numerics.symmetric_row_scale(x).tolist() == [[1.0, 2.0], [2.0**-126, float(np.float32(1) / np.float32(127))]]


# -- weights, linear, embedding ----------------------------------------------------------------------------------------


def test_quantize_weight() -> None:
    weight = torch.tensor([[127.0, -127.0, 0.5, 1.5], [0.0, 0.0, 0.0, 0.0], [-2.54, 0.01, 0.03, -0.02]])
    q, scale = numerics.quantize_weight(weight)
    assert q.dtype == torch.int8 and scale.dtype == torch.float32
    assert q[:2].tolist() == [[127, -127, 0, 2], [0, 0, 0, 0]]
    assert scale[0] == 1.0 and scale[1] == 2.0**-126 and scale[2].item() == pytest.approx(0.02)
    q, scale = numerics.quantize_weight(weight, per_channel=False)
    assert scale.tolist() == [1.0, 1.0, 1.0] and q[2].tolist() == [-3, 0, 0, 0]


@few
@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 2**32))
def test_weight_error_is_half_a_step(rows: int, columns: int, seed: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    q, scale = numerics.quantize_weight(weight)
    assert (q.abs().amax(1) == 127).all(), "the largest of a row is +-127, and -128 does not occur"
    error = (q.float() * scale.unsqueeze(1) - weight).abs()
    assert (error <= scale.unsqueeze(1) * (0.5 + 1e-4)).all()


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("weight", [-128, -127, 127])
@pytest.mark.parametrize("zero_point", [0, 128, 255])
def test_largest_sums_are_exact(value: int, weight: int, zero_point: int) -> None:
    k = numerics.MAX_REDUCTION
    assert 255 * 128 * k < 2**31
    x, w = torch.full((1, k), value, dtype=torch.uint8), torch.full((1, k), weight, dtype=torch.int8)
    w[0, 0] = 1
    found = numerics.matmul_int32(x, zero_point, w)
    assert found.dtype == torch.int32
    assert found.item() == (value - zero_point) * (weight * (k - 1) + 1)


@few
@given(st.integers(1, 5), st.integers(1, 70), st.integers(1, 5), zero_points, st.integers(0, 2**32))
def test_matmul_is_integer(rows: int, k: int, n: int, zero_point: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.integers(0, 256, (rows, k)), rng.integers(-127, 128, (n, k))
    found = numerics.matmul_int32(torch.tensor(x, dtype=torch.uint8), zero_point, torch.tensor(w, dtype=torch.int8))
    assert found.tolist() == ((x - zero_point) @ w.T).tolist()


def test_linear() -> None:
    x = torch.tensor([[10, 20], [12, 8]], dtype=torch.uint8)
    weight = torch.tensor([[1, 2], [-3, 4], [0, 127]], dtype=torch.int8)
    weight_scale, bias = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([100.0, -0.5, 0.0])
    # (x - 10): [[0, 10], [2, -2]]; sums: [[20, 40, 1270], [-2, -14, -254]]
    assert numerics.linear(x, 0.5, 10, weight, weight_scale).tolist() == [[10, 10, 1270], [-1, -3.5, -254]]
    assert numerics.linear(x, 0.5, 10, weight, weight_scale, bias).tolist() == [[110, 9.5, 1270], [99, -4, -254]]
    assert numerics.linear(x, 0.5, 10, weight, weight_scale, bias, "relu").tolist() == [[110, 9.5, 1270], [99, 0, 0]]
    dynamic = numerics.linear(x, torch.tensor([1.0, 2.0]), torch.tensor([10, 8]), weight, weight_scale)
    # second row: (x - 8): [4, 0]; sums [4, -12, 0]; scale 2
    assert dynamic.tolist() == [[20, 20, 2540], [8, -12, 0]]


def test_linear_of_one_input() -> None:
    x, weight = torch.tensor([[255], [0]], dtype=torch.uint8), torch.tensor([[-127]], dtype=torch.int8)
    assert numerics.linear(x, 1.0, 5, weight, torch.ones(1)).tolist() == [[-31750.0], [635.0]]


def test_embedding() -> None:
    table, scale = torch.tensor([[1, -2], [127, 0], [-127, 3]], dtype=torch.int8), torch.tensor([1.0, 0.5, 2.0])
    found = numerics.embedding(torch.tensor([[2, 0], [1, 1]]), table, scale)
    assert found.tolist() == [[[-254.0, 6.0], [1.0, -2.0]], [[63.5, 0.0], [63.5, 0.0]]]
