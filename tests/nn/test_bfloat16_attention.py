"""`Bfloat16Attention`: its definition, its place in a model, and the way through checkpoint, training and inspection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from optimum_int8 import Int8Config, kernels, numerics, quantize
from optimum_int8.hub import OptimizedModel
from optimum_int8.nn import Bfloat16Attention
from optimum_int8.quantization import inspect
from optimum_int8.sites import find_sites
from optimum_int8.training import convert_qat, prepare_qat
from tests import zoo
from tests.models import batch, classifier, logits

STEP = 2.0**-8
"""Between two neighbours in bfloat16, relative, at most 2**-7: half of it is what rounding costs."""

LOWEST = torch.finfo(torch.float32).min
CORE = "bert.encoder.layer.0.attention.self"


def inputs(heads: int = 4, kv_heads: int = 4, length: int = 23, head: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, n, length, head, generator=generator) for n in (heads, kv_heads, kv_heads))  # type: ignore


def masks(length: int = 23) -> dict[str, Tensor | None]:
    seen = torch.arange(length) < torch.tensor([[length], [7]])
    return {
        "none": None,
        "padding": seen[:, None, None],
        "float": torch.where(seen, 0.0, LOWEST)[:, None, None].expand(2, 1, length, length),
        "bias": torch.randn(1, 4, length, length, generator=torch.Generator().manual_seed(3)),
    }


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("causal", [False, True])
def test_is_the_definition(kv_heads: int, mask: str, causal: bool) -> None:
    if causal and mask != "none":
        pytest.skip("Transformers puts causality into the mask when there is one")
    tensors, given = inputs(kv_heads=kv_heads), masks()[mask]
    defined = numerics.bfloat16_attention(*tensors, 0.25, given, causal).transpose(1, 2)
    found = Bfloat16Attention().eval()(*tensors, given, 0.25, causal)
    assert found.dtype == torch.float32 and found.is_contiguous()
    if kernels.info()["isa_used"] == "amx":  # its tiles add in another order
        assert ((found - defined).abs() <= STEP * tensors[2].abs().max()).all()
    else:
        assert torch.equal(found, defined)
    trained = Bfloat16Attention()(tensors[0].requires_grad_(), *tensors[1:], given, 0.25, causal)
    assert ((trained - defined).abs() <= STEP * tensors[2].abs().max()).all(), "torch's rounds the result too"
    assert (trained == defined.to(torch.bfloat16)).float().mean() > 0.5, "rounding is that of the definition"


@pytest.mark.parametrize("mask", masks())
def test_the_definition_is_near_float(mask: str) -> None:
    """Rounded operands move a score by two half steps, probabilities and values by one each, and the result by one."""
    q, k, v = inputs()
    given = masks()[mask]
    exact = functional.scaled_dot_product_attention(q, k, v, given, scale=0.25)
    found = numerics.bfloat16_attention(q, k, v, 0.25, given).float()
    moved = torch.expm1(4 * STEP * 0.25 * (q.abs() @ k.abs().transpose(-1, -2)).amax(-1, keepdim=True))
    assert ((found - exact).abs() <= (moved + 3 * STEP) * v.abs().amax((-1, -2), keepdim=True)).all()
    assert (found - exact).norm() < 0.01 * exact.norm()


def test_outliers_that_ruin_int8_do_not_matter() -> None:
    q, k, v = inputs()
    v[..., 0] *= 1000.0
    exact = functional.scaled_dot_product_attention(q, k, v)[..., 1:]

    def error(found: Tensor) -> float:
        return float((found[..., 1:] - exact).norm() / exact.norm())

    scales = [x.abs().max() / 127 for x in (q, k, v)]
    quantized = [numerics.quantize_affine(x, s, 128) for x, s in zip((q, k, v), scales, strict=True)]
    assert error(numerics.int8_attention(*quantized, *scales, 0.25)) > 0.9
    assert error(numerics.bfloat16_attention(q, k, v, 0.25).float()) < 0.01


def test_keeps_the_dtype_and_drops_only_in_training() -> None:
    tensors = [x.half() for x in inputs()]
    core = Bfloat16Attention().eval()
    whole = core(*tensors, None, 0.25, False, 0.5)
    assert whole.dtype == torch.float16 and torch.equal(whole, core(*tensors, None, 0.25, False))
    assert not torch.equal(core.train()(*tensors, None, 0.25, False, 0.5), whole)


def static(**changes: Any) -> Any:
    config = Int8Config(approach="static", attention="bfloat16", **changes)
    return quantize(classifier(), config, [batch(), batch(4, 17, 0, 2)], progress=False)


def test_sites_say_which_cores() -> None:
    config = Int8Config(attention="bfloat16", exclude_attention=(CORE.replace("0", "1"),))
    sites = find_sites(classifier(), config)
    assert sites.of_kind("attention_bfloat16") == [CORE] and not sites.of_kind("attention")
    assert sites.fp32[CORE.replace("0", "1")] == "its core is excluded by name"


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_saved_and_loaded_to_the_bit_and_inspected(approach: str, tmp_path: Path) -> None:
    config = Int8Config(approach=approach, attention="bfloat16")
    int8 = quantize(classifier(), config, [batch()], progress=False)
    OptimizedModel.save_pretrained(int8, tmp_path / "int8")
    loaded = OptimizedModel.from_pretrained(tmp_path / "int8")
    assert isinstance(loaded.get_submodule(CORE).int8_attention, Bfloat16Attention)
    for given in (batch(4, 12, 3, 5), batch(1, 30, 0, 6)):
        assert torch.equal(logits(loaded, **given), logits(int8, **given))
    assert loaded.config.quantization_config.to_dict()["modules"][CORE] == "attention_bfloat16"
    encoder = next(row for row in inspect(loaded).blocks if row.cls == "BertEncoder")
    assert encoder.variants and not encoder.left_in_torch, "it is one program"


@pytest.mark.slow
def test_fused_and_single_modules_agree() -> None:
    """As in any model: sums of norms differ in their last bit, which moves a value to the neighbouring level now and then."""
    given = batch(4, 12, 3, 5)
    fused, single = logits(static(), **given), logits(static(fuse=False), **given)
    assert (fused - single).abs().max() < 0.02 * single.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_decoders_with_a_cache(name: str) -> None:
    """Both float cores: near each other, the same tokens with and without a cache, and no attention left to torch."""
    model, found = zoo.make(name), {}
    given = zoo.inputs(model)
    prompt = {k: v for k, v in given.items() if not k.startswith("decoder_") and k != "labels"}
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 1}
    for attention in ("bfloat16", "float32"):
        int8 = quantize(model, Int8Config(approach="dynamic", attention=attention), progress=False)
        found[attention] = zoo.logits(int8, given)
        cached = int8.generate(**prompt, **options, use_cache=True)
        assert torch.equal(int8.generate(**prompt, **options, use_cache=False), cached)
        left = {op for row in inspect(int8).blocks for op in row.left_in_torch}
        assert not [op for op in left if "attention" in op], attention
    assert (found["bfloat16"] - found["float32"]).norm() < 0.05 * found["float32"].norm()


def test_trains_and_converts() -> None:
    config = Int8Config(approach="qat", attention="bfloat16", fuse=False)
    prepared = prepare_qat(classifier(), config, [batch()], progress=False)
    prepared.train()(**batch()).logits.square().mean().backward()
    assert prepared.get_submodule(f"{CORE}.query").weight.grad.abs().sum() > 0
    given = batch(4, 12, 3, 5)
    fake, int8 = logits(prepared.eval(), **given), logits(convert_qat(prepared), **given)
    assert (fake - int8).abs().max() < 0.05 * fake.abs().max()
