"""Fake quantization against the definition of the arithmetic, to the bit, and its gradients against their formulas."""

from __future__ import annotations

import pytest
import torch

from optimum_int8 import numerics
from optimum_int8.nn.fake import FakeQuantize, fake_quantize_weight
from optimum_int8.nn.tokens import counting

BITS = (8, 6, 4)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("learnable", [False, True])
def test_an_affine_grid_is_that_of_the_definition(bits: int, learnable: bool) -> None:
    x = torch.randn(300, 40) * 3
    scale, zero_point = numerics.choose_affine_qparams(-2.0, 3.5, bits)
    q = numerics.quantize_affine(x, scale, zero_point).clamp(max=2**bits - 1)
    found = FakeQuantize((-2.0, 3.5), bits=bits, learnable=learnable)(x)
    assert torch.equal(found, numerics.dequantize_affine(q, scale, zero_point))
    assert len(found.unique()) <= 2**bits


@pytest.mark.parametrize("bits", BITS)
def test_a_symmetric_grid_is_that_of_the_definition(bits: int) -> None:
    x = torch.randn(300, 40) * 3
    scale = numerics.choose_symmetric_scale(4.0, bits)
    clipped = x if bits == 8 else x.clamp(-4.0, 4.0)
    q = numerics.quantize_affine(clipped, scale, numerics.SYMMETRIC_ZERO_POINT)
    expected = numerics.dequantize_affine(q, scale, numerics.SYMMETRIC_ZERO_POINT)
    assert torch.equal(FakeQuantize((-4.0, 2.0), symmetric=True, bits=bits)(x), expected)


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_weight_is_that_of_the_definition(per_channel: bool) -> None:
    weight = torch.randn(33, 17) * torch.rand(33, 1)
    weight[3] = 0.0
    weight.requires_grad_()
    found = fake_quantize_weight(weight, per_channel)
    q, scale = numerics.quantize_weight(weight, per_channel)
    assert torch.equal(found, q.float() * scale.unsqueeze(1))
    found.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


@pytest.mark.parametrize("learnable", [False, True])
def test_the_gradient_passes_inside_the_range_only(learnable: bool) -> None:
    x = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0], requires_grad=True)
    FakeQuantize((-2.0, 2.0), learnable=learnable)(x).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_the_gradient_of_a_learnt_scale_is_that_of_lsq() -> None:
    part = FakeQuantize((-1.0, 3.0), bits=4, learnable=True)
    scale, zero_point = float(part.scale), int(part.zero_point)
    x, upstream = torch.linspace(-4.0, 6.0, 101), torch.linspace(-1.0, 2.0, 101)
    (part(x) * upstream).sum().backward()
    v = x / scale
    low, high = -zero_point, 15 - zero_point
    lsq = torch.where(v.round() < low, float(low), torch.where(v.round() > high, float(high), v.round() - v))
    assert float(part.log_gain.grad) == pytest.approx(float((lsq * upstream).sum()) * scale, rel=1e-4)


def test_a_learnt_gain_multiplies_the_scale() -> None:
    part = FakeQuantize((-1.0, 1.0), learnable=True)
    before = float(part.current_scale())
    torch.nn.init.constant_(part.log_gain, 0.5)
    assert float(part.current_scale()) == pytest.approx(before * 1.6487213)
    assert part.zero_point == numerics.choose_affine_qparams(-1.0, 1.0)[1]


def test_ranges_follow_what_was_seen_in_training_without_padding() -> None:
    part = FakeQuantize((-1.0, 1.0)).train()
    x = torch.full((2, 3, 4), 3.0)
    x[0, 2] = 100.0
    with counting([torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()]):
        part(x)
        part(x)  # as gradient checkpointing does
    low, high = part.take_seen()
    assert (float(low), float(high)) == (3.0, 3.0)
    assert part.take_seen() is None
    part.update(low, high, 0.1)
    assert (float(part.minimum), float(part.maximum)) == (pytest.approx(-0.9), pytest.approx(1.2))
    scale, zero_point = numerics.choose_affine_qparams(float(part.minimum), float(part.maximum))
    assert (float(part.scale), int(part.zero_point)) == (scale, zero_point)
    part.eval()
    part(x)
    assert part.take_seen() is None


def test_values_that_are_not_finite_do_not_move_a_range() -> None:
    part = FakeQuantize((-1.0, 1.0)).train()
    part(torch.tensor([[float("nan"), 5.0]]))
    part.update(*part.take_seen(), 0.5)
    assert float(part.maximum) == 1.0


def test_scales_stay_float32_in_a_half_precision_model() -> None:
    part = FakeQuantize((-1.0, 1.0), learnable=True).to(torch.bfloat16)
    assert {t.dtype for t in (part.scale, part.log_gain)} == {torch.float32}
    assert part(torch.ones(2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
