"""The definition of convolutions and pooling, against torch on floats and on integers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from optimum_int8 import KernelError, numerics
from optimum_int8.numerics import CONV_ACTIVATIONS, Window
from tests.operators.cases_conv import SHAPES, grid


@pytest.mark.parametrize("shape", SHAPES)
def test_conv_is_torch_on_dequantized_values(shape: str) -> None:
    batch, height, width, inner, outer, window, groups = SHAPES[shape]
    torch.manual_seed(0)
    x = torch.randn(batch, height, width, inner) * 3
    q = numerics.quantize_affine(x, *grid())
    weight = torch.randn(outer, inner // groups, window.height, window.width)
    int8, scale = numerics.quantize_weight(weight.flatten(1))
    bias = torch.randn(outer)
    found = numerics.conv(q, *grid(), int8.view(weight.shape), scale, bias, window, groups)
    floats = numerics.dequantize_affine(q, *grid()).permute(0, 3, 1, 2)
    floats = F.pad(floats, (window.left, window.right, window.top, window.bottom))
    strides, dilations = (window.stride_y, window.stride_x), (window.dilation_y, window.dilation_x)
    wide = (int8.to(torch.float32) * scale.unsqueeze(1)).view(weight.shape)
    expected = F.conv2d(floats, wide, bias, strides, 0, dilations, groups).permute(0, 2, 3, 1)
    assert found.shape[1:3] == window.output_size(height, width)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", CONV_ACTIVATIONS)
def test_activations_are_torchs(name: str) -> None:
    x = torch.linspace(-9.0, 9.0, 1001)
    module = {
        "none": nn.Identity(), "relu": nn.ReLU(), "gelu": nn.GELU(), "gelu_tanh": nn.GELU("tanh"), "silu": nn.SiLU(),
        "tanh": nn.Tanh(), "leaky_relu": nn.LeakyReLU(0.1), "hardswish": nn.Hardswish(),
    }[name]  # fmt: skip
    torch.testing.assert_close(numerics.activate(x, name, 0.1), module(x), rtol=1e-5, atol=2e-5)


def test_the_residual_stands_between_the_activations() -> None:
    x, weight = torch.full((1, 1, 1, 1), 1, dtype=torch.uint8), torch.tensor([[[[1]]]], dtype=torch.int8)
    one = torch.ones(1)
    args = x, 1.0, 0, weight, one, torch.tensor([-3.0]), Window(1, 1), 1
    residual = torch.full((1, 1, 1, 1), -5.0)
    assert numerics.conv(*args, "leaky_relu", 0.5, residual, "none").item() == -6.0
    assert numerics.conv(*args, "none", 0.5, residual, "leaky_relu").item() == -3.5
    on_grid = torch.full((1, 1, 1, 1), 118, dtype=torch.uint8), "leaky_relu", torch.tensor(0.5), torch.tensor(128)
    assert numerics.conv(*args, "none", 0.5, *on_grid).item() == -3.5


def test_max_pooling_and_quantization_commute() -> None:
    x = torch.randn(2, 7, 9, 5) * 4
    window = Window(3, 3, 2, 2, 1, 1, 1, 1)
    pooled = F.max_pool2d(x.permute(0, 3, 1, 2), 3, 2, 1).permute(0, 2, 3, 1)
    quantized = numerics.max_pool(numerics.quantize_affine(x, *grid()), window)
    assert torch.equal(quantized, numerics.quantize_affine(pooled, *grid()))


def test_average_pooling_is_torch_on_dequantized_values() -> None:
    q = torch.randint(0, 256, (2, 7, 9, 5), dtype=torch.uint8)
    floats = numerics.dequantize_affine(q, *grid()).permute(0, 3, 1, 2)
    found = numerics.avg_pool(q, *grid())
    torch.testing.assert_close(found, floats.mean((2, 3), keepdim=True).permute(0, 2, 3, 1))


@pytest.mark.parametrize("padding_counts", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 3, 0), ((3, 4), (2, 3), (1, 0)), (5, 1, 2), (7, 9, 0)]
)
def test_average_pooling_is_torchs_to_the_bit(
    kernel: Any, stride: Any, padding: Any, ceil_mode: bool, padding_counts: bool
) -> None:
    pairs = [(v, v) if isinstance(v, int) else v for v in (kernel, stride, padding)]
    window = numerics.pool_window(*pairs, ceil_mode=ceil_mode)
    if window is None:
        assert ceil_mode and stride == 9  # a step longer than the window: torch drops the last one
        return
    for height, width in itertools.product((7, 8, 9, 10), (7, 10, 11)):
        x = torch.randn(2, 5, height, width)
        expected = F.avg_pool2d(x, kernel, stride, padding, ceil_mode, padding_counts).permute(0, 2, 3, 1)
        assert torch.equal(numerics.avg_pool(x.permute(0, 2, 3, 1), None, None, window, padding_counts), expected)
        q, (scale, zero_point) = numerics.quantize_affine(x, *grid()).permute(0, 2, 3, 1), grid()
        found = numerics.avg_pool(q, scale, zero_point, window, padding_counts)
        floats = numerics.dequantize_affine(q, scale, zero_point).permute(0, 3, 1, 2)
        pooled = F.avg_pool2d(floats, kernel, stride, padding, ceil_mode, padding_counts).permute(0, 2, 3, 1)
        torch.testing.assert_close(found, pooled)


def test_an_average_whose_sum_could_overflow_is_refused() -> None:
    with pytest.raises(KernelError, match="9000000 positions"):
        numerics.avg_pool(torch.zeros(1, 1, 9_000_000, 1, dtype=torch.uint8), *grid())


def test_each_sample_has_its_own_range() -> None:
    x = torch.randn(3, 4, 5, 2) * torch.tensor([1.0, 10.0, 0.0]).view(-1, 1, 1, 1)
    q, scale, zero_point = numerics.quantize_samples(x)
    for i in range(3):
        one = numerics.quantize_rows(x[i].reshape(1, -1))
        assert torch.equal(q[i].reshape(1, -1), one[0]) and scale[i] == one[1] and zero_point[i] == one[2]
