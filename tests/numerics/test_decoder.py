"""Definitions of what decoders need, next to Transformers' own code."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.cohere.modeling_cohere import rotate_half as rotate_neighbours
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.glm.modeling_glm import apply_rotary_pos_emb as turn_first_neighbours
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb as turn_first_halves
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from optimum_int8 import numerics


def heads_and_angles(head: int, turned: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of three heads, the heads, and angles of one sequence as a rotary embedding gives them."""
    rows = torch.randn(2, 5, 3 * head)
    half = torch.rand(1, 5, turned // 2) * 6.3
    both = torch.cat((half, half), -1)
    return rows, rows.unflatten(-1, (3, head)).transpose(1, 2), both.cos() * 1.2, both.sin() * 1.2


@pytest.mark.parametrize("head", [2, 16, 34, 64])
def test_rotary_is_that_of_llama_to_the_bit(head: int) -> None:
    rows, heads, cos, sin = heads_and_angles(head, head)
    expected, _ = apply_rotary_pos_emb(heads, heads, cos, sin)
    assert torch.equal(numerics.rotary(rows, cos, sin, 3, False), expected.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("turned", [8, 24, 32])
def test_partial_rotary_is_that_of_phi3_to_the_bit(turned: int) -> None:
    rows, heads, cos, sin = heads_and_angles(32, turned)
    expected, _ = turn_first_halves(heads, heads, cos, sin)
    assert torch.equal(numerics.rotary(rows, cos, sin, 3, False), expected.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("turned", [8, 32])
def test_interleaved_rotary_is_that_of_glm_and_cohere_to_the_bit(turned: int) -> None:
    rows, heads, cos, sin = heads_and_angles(32, turned)
    expected, _ = turn_first_neighbours(heads, heads, cos, sin)
    repeated = [angle[..., : turned // 2].repeat_interleave(2, -1) for angle in (cos, sin)]
    found = numerics.rotary(rows, *repeated, 3, True)
    assert torch.equal(found, expected.transpose(1, 2).flatten(2))
    if turned == 32:
        again = heads * repeated[0].unsqueeze(1) + rotate_neighbours(heads) * repeated[1].unsqueeze(1)
        assert torch.equal(found, again.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("head", "turned"), [(16, 7), (16, 18)])
def test_angles_that_no_head_has_are_refused(head: int, turned: int) -> None:
    angle = torch.rand(5, turned)
    with pytest.raises(ValueError, match=f"{turned} angles for heads of {head}"):
        numerics.rotary(torch.rand(5, 2 * head), angle, angle, 2, False)
    with pytest.raises(ValueError, match=f"{turned} angles for heads of {head}"):
        torch.ops.optimum_int8.rotary(torch.rand(5, 2 * head), angle, angle, 2, False)


def test_norms_of_heads_are_those_of_transformers() -> None:
    rows = torch.randn(7, 3 * 32)
    for norm in (Qwen3RMSNorm(32), Gemma3RMSNorm(32), nn.LayerNorm(32)):
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.add_(torch.randn(32) * 0.2)
            expected = norm(rows.unflatten(-1, (3, 32))).flatten(1)
        weight = norm.weight + 1.0 if isinstance(norm, Gemma3RMSNorm) else norm.weight
        bias = norm.bias if isinstance(norm, nn.LayerNorm) else None
        kind = "layer_norm" if bias is not None else "rms_norm"
        eps = next(getattr(norm, name) for name in ("variance_epsilon", "eps") if hasattr(norm, name))
        found = numerics.head_norm(rows, weight, bias, 3, kind, eps)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("silu", nn.functional.silu),
        ("gelu", nn.functional.gelu),
        ("gelu_tanh", lambda x: nn.functional.gelu(x, approximate="tanh")),
        ("relu", torch.relu),
        ("none", lambda x: x),
    ],
)
def test_gated_activations(name: str, function: object) -> None:
    gate, up = torch.linspace(-12, 12, 4001), torch.randn(4001)
    expected = function(gate) * up  # type: ignore[operator]
    assert torch.allclose(numerics.gated(gate, up, name), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(numerics.gated(gate, up, name), numerics.activate(gate, name) * up)


def test_a_soft_cap_bounds_scores() -> None:
    query, key, value = torch.randn(3, 2, 4, 9, 16).mul(3.0).unbind()
    mask = torch.randn(2, 1, 9, 9)
    scores = query @ key.transpose(-1, -2) * 0.3
    expected = torch.softmax(torch.tanh(scores / 2.5) * 2.5 + mask, -1) @ value
    found = numerics.float_attention(query, key, value, 0.3, mask, softcap=2.5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    rounded = numerics.bfloat16_attention(query, key, value, 0.3, mask, softcap=2.5)
    assert 1e-4 < (rounded - expected).norm() / expected.norm() < 0.02


def test_heads_of_interleaved_rows() -> None:
    x = torch.randn(2, 5, 4 * 3 * 8)
    parts = [numerics.take_heads(x, 8 * i, 24, 4, 8) for i in range(3)]
    for part, expected in zip(parts, x.view(2, 5, 4, 3, 8).unbind(3), strict=True):
        assert torch.equal(part, expected.flatten(2))
    with pytest.raises(ValueError, match="up to column 104 of rows of 96"):
        numerics.take_heads(x, 16, 24, 4, 16)
