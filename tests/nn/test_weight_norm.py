"""Convolutions with weight norm are INT8: of the weight that a call computes, not of one that may be old."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.nn.weight_norm import has_weight_norm

GENERATOR = torch.Generator().manual_seed(0)
CONVOLUTIONS = {
    "speech positions": (lambda: nn.Conv1d(32, 32, 8, padding=4, groups=4), (2, 32, 20)),
    "image": (lambda: nn.Conv2d(4, 8, 3, padding=1, stride=2), (2, 4, 9, 9)),
    "no bias": (lambda: nn.Conv1d(8, 8, 3, bias=False), (1, 8, 12)),
}


def normed(make: Any, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    conv = weight_norm(make(), **settings)
    with torch.no_grad():  # lengths that are no longer those of the directions
        conv.parametrizations.weight.original0.mul_(torch.rand_like(conv.parametrizations.weight.original0) + 0.5)
    return conv


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("dim", [0, 2])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_equals_the_same_convolution_without_weight_norm(name: str, dim: int, approach: str) -> None:
    make, shape = CONVOLUTIONS[name]
    x = torch.randn(shape, generator=GENERATOR)
    conv = normed(make, dim=dim)
    plain = make()
    plain.load_state_dict({"weight": conv.weight, **({"bias": conv.bias} if conv.bias is not None else {})})
    data = [x] if approach == "static" else None
    found, expected = (
        quantize(nn.Sequential(m).eval(), Int8Config(approach=approach), data, progress=False) for m in (conv, plain)
    )
    assert type(found[0]).__name__ == f"Int8{type(plain).__name__}"
    with torch.no_grad():
        assert torch.equal(found(x), expected(x))
        assert relative(found(x), conv(x)) < 0.02
        assert has_weight_norm(conv), "the model given stays as it is"


@pytest.mark.parametrize("kind", ["spectral", "old", "both", "bias too"])
def test_other_computed_weights_stay_float(kind: str) -> None:
    conv = nn.Conv1d(8, 8, 3)
    if kind == "old":
        with pytest.warns(FutureWarning):
            conv = nn.utils.weight_norm(conv)
    elif kind == "spectral":
        conv = spectral_norm(conv)
    elif kind == "both":
        conv = spectral_norm(weight_norm(conv))
    else:
        conv = weight_norm(weight_norm(conv), "bias", dim=None)
    assert not has_weight_norm(conv)
    model = quantize(nn.Sequential(conv, nn.Conv1d(8, 4, 1)).eval(), Int8Config(approach="dynamic"), progress=False)
    assert type(model[0]).__name__ == "ParametrizedConv1d" or kind == "old"
    assert "computed from others" in model.int8_metadata["fp32"]["0"]


def test_training_keeps_it_float() -> None:
    from optimum_int8.sites.collect import collect_sites

    model = nn.Sequential(normed(lambda: nn.Conv1d(8, 8, 3)), nn.Conv1d(8, 4, 1))
    sites = collect_sites(model, Int8Config(approach="qat"))
    assert set(sites.int8) == {"1"}
    assert sites.fp32["0"] == "its weight is computed from others by WeightNorm"


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("name", ["Wav2Vec2", "Hubert"])
def test_a_speech_model_is_stored_and_loaded_to_the_bit(name: str, approach: str, tmp_path: Path) -> None:
    config = getattr(transformers, f"{name}Config")(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, conv_dim=(16, 16),
        conv_kernel=(4, 4), conv_stride=(2, 2), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, vocab_size=20,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCTC")(config).eval()
    x = torch.randn(2, 400, generator=GENERATOR)
    data = [{"input_values": x}] if approach == "static" else None
    int8 = quantize(model, Int8Config(approach=approach), data, progress=False)
    positions = int8.base_model.encoder.pos_conv_embed.conv
    assert type(positions).__name__ == "Int8Conv1d"
    OptimizedModel.save_pretrained(int8, tmp_path)
    with torch.no_grad():
        expected = int8(input_values=x).logits
        assert relative(expected, model(input_values=x).logits) < 0.1
        for loader in (OptimizedModel, transformers.AutoModelForCTC):
            assert torch.equal(loader.from_pretrained(tmp_path).eval()(input_values=x).logits, expected)


@pytest.mark.slow
def test_importing_draws_no_random_numbers() -> None:
    code = (
        "import torch; torch.manual_seed(0); before = torch.random.get_rng_state(); import optimum_int8.quantization;"
        "assert torch.equal(before, torch.random.get_rng_state())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
