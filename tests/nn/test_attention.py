"""`Int8Attention` and its place in Transformers' attention interface."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from optimum_int8 import numerics
from optimum_int8.nn import CHILD, IMPLEMENTATION, Int8Attention, int8_attention_forward, uses_attention_interface
from tests.models import classifier

SCALES = {"query": (-3.0, 2.0), "key": (-1.0, 4.0), "value": (-2.0, 2.0)}


class Host(nn.Module):
    """What an attention module hands to the interface: itself."""

    def __init__(self, static: bool = True, causal: bool = False, with_core: bool = True) -> None:
        super().__init__()
        self.is_causal = causal
        if with_core:
            self.add_module(CHILD, Int8Attention.from_ranges(SCALES if static else None))


def inputs(heads: int = 2, kv_heads: int = 2, length: int = 7, head: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, n, length, head, generator=generator).clamp(-2, 2) for n in (heads, kv_heads, kv_heads))  # type: ignore


def by_definition(
    tensors: tuple[Tensor, ...], static: bool, scaling: float, mask: Tensor | None, causal: bool = False
) -> Tensor:
    quantized, scales = [], []
    for x, (low, high) in zip(tensors, SCALES.values(), strict=True):
        fixed = torch.tensor(numerics.choose_symmetric_scale(max(-low, high)))
        scale = fixed if static else numerics.symmetric_row_scale(x)
        quantized.append(
            numerics.quantize_affine(x, scale if static else scale.unsqueeze(-1), numerics.SYMMETRIC_ZERO_POINT)
        )
        scales.append(scale)
    return numerics.int8_attention(*quantized, *scales, scaling, mask, causal).transpose(1, 2)


MASKS = {
    "none": None,
    "boolean": torch.arange(7).expand(2, 1, 7, 7) < torch.tensor([7, 4]).view(2, 1, 1, 1),
    "float": torch.randn(1, 2, 7, 7, generator=torch.Generator().manual_seed(3)),
}


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [True, False])
def test_equals_the_definition_and_is_near_sdpa(static: bool, mask: str, causal: bool) -> None:
    host, tensors = Host(static, causal), inputs()
    found, weights = int8_attention_forward(host, *tensors, MASKS[mask], scaling=0.3)
    assert weights is None
    used = causal and mask == "none"  # Transformers puts causality into the mask when there is one
    assert torch.equal(found, by_definition(tensors, static, 0.3, MASKS[mask], used))
    exact, _ = sdpa_attention_forward(host, *tensors, MASKS[mask], scaling=0.3)
    assert (found - exact).square().mean() < 0.002 * exact.square().mean()


def test_the_scale_of_scores_defaults_to_the_root_of_the_head() -> None:
    host, tensors = Host(), inputs()
    assert torch.equal(int8_attention_forward(host, *tensors, None)[0], by_definition(tensors, True, 0.25, None))


def test_fewer_key_heads_are_shared() -> None:
    host, tensors = Host(), inputs(heads=4, kv_heads=2)
    assert torch.equal(
        int8_attention_forward(host, *tensors, None, scaling=0.25)[0], by_definition(tensors, True, 0.25, None)
    )


def test_one_query_is_not_causal() -> None:
    host = Host(causal=True)
    query, key, value = inputs()
    found = int8_attention_forward(host, query[:, :, :1], key, value, None, scaling=0.25)[0]
    assert torch.equal(found, by_definition((query[:, :, :1], key, value), True, 0.25, None))


@pytest.mark.parametrize("causal", [True, False])
def test_position_bias_is_added_to_the_scores(causal: bool) -> None:
    host, tensors = Host(causal=causal), inputs()
    bias = torch.randn(1, 2, 7, 7, generator=torch.Generator().manual_seed(4))
    found, _ = int8_attention_forward(host, *tensors, None, scaling=1.0, position_bias=bias)
    exact, _ = sdpa_attention_forward(host, *tensors, None, scaling=1.0, position_bias=bias)
    assert (found - exact).square().mean() < 0.002 * exact.square().mean()
    without, _ = int8_attention_forward(host, *tensors, None, scaling=1.0)
    assert (without - exact).square().mean() > 0.02 * exact.square().mean()


@pytest.mark.parametrize("case", ["gradients", "dropout", "value width"])
def test_falls_back_to_torch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the INT8 core does not compute the same function."""
    host, (query, key, value) = Host(with_core=case != "gradients"), inputs()
    query.requires_grad_(case == "gradients")
    extra = {"dropout": 0.5} if case == "dropout" else {}
    if case == "value width":
        value = value[..., :8]
    called = []

    def spy(*args: object, **kwargs: object) -> tuple[Tensor, None]:
        called.append(kwargs)
        return query, None

    monkeypatch.setattr("optimum_int8.nn.attention.sdpa_attention_forward", spy)
    assert int8_attention_forward(host, query, key, value, None, **extra)[0] is query
    assert len(called) == 1
    int8_attention_forward(Host(with_core=case != "gradients"), *inputs(), None, softcap=None)
    assert len(called) == 1, "nothing but the case itself makes it fall back"


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [True, False])
def test_without_grids_it_is_the_float32_kernel(mask: str, causal: bool) -> None:
    host, tensors, given = Host(causal=causal, with_core=False), inputs(), MASKS[mask]
    found, weights = int8_attention_forward(host, *tensors, given, scaling=0.3)
    used = causal and given is None
    assert weights is None
    assert torch.equal(found, numerics.float_attention(*tensors, 0.3, given, used).transpose(1, 2))
    exact, _ = sdpa_attention_forward(host, *tensors, given, scaling=0.3)
    assert torch.allclose(found, exact, atol=2e-6)


def test_is_registered_in_transformers() -> None:
    assert ALL_ATTENTION_FUNCTIONS[IMPLEMENTATION] is int8_attention_forward


def test_only_modules_that_ask_the_interface_are_sites() -> None:
    model = classifier()
    found = [name for name, module in model.named_modules() if uses_attention_interface(module)]
    assert found == [f"bert.encoder.layer.{i}.attention.self" for i in (0, 1)]


def test_state_dict_and_dtype() -> None:
    core = Int8Attention.from_ranges(SCALES)
    assert {k: float(v) for k, v in core.state_dict().items()} == {
        "query_scale": pytest.approx(3 / 127),
        "key_scale": pytest.approx(4 / 127),
        "value_scale": pytest.approx(2 / 127),
    }
    assert not Int8Attention.from_ranges(None).state_dict()
    assert core.half().query_scale.dtype == torch.float32
    result = core(*[x.half() for x in inputs()], None, 0.25, False)
    assert result.dtype == torch.float16
