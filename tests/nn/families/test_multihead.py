"""`nn.MultiheadAttention` unpacked: the same call and results, and its projections and core as sites."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optimum_int8
from optimum_int8 import Int8Config, QuantConf, calibrate, convert, quantize
from optimum_int8.nn import Bfloat16Attention, Int8Attention, Int8Linear
from optimum_int8.nn.families import UnpackedMultiheadAttention, unpack_attention
from tests.models import reloaded

HIDDEN = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)


def attention(seed: int = 0, **settings: Any) -> nn.MultiheadAttention:
    torch.manual_seed(seed)
    module = nn.MultiheadAttention(32, 4, **{"batch_first": True, **settings}).eval()
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return module


def rows(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, MEMORY = rows(2, 5, 32), rows(2, 7, 32, seed=2)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"batch_first": False}, {"kdim": 8, "vdim": 12}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"need_weights": False},
        {},
        {"average_attn_weights": False},
        {"need_weights": False, "key_padding_mask": HIDDEN},
        {"key_padding_mask": HIDDEN},
        {"need_weights": False, "attn_mask": CAUSAL},
        {"need_weights": False, "attn_mask": CAUSAL, "is_causal": True},
        {"attn_mask": torch.zeros(5, 5).masked_fill(CAUSAL, -torch.inf), "is_causal": True},
        {"need_weights": False, "attn_mask": CAUSAL, "key_padding_mask": HIDDEN, "is_causal": True},
        {"need_weights": False, "attn_mask": rows(8, 5, 5), "key_padding_mask": HIDDEN},
        {"need_weights": False, "attn_mask": rows(8, 5, 5) > 0.8},
    ],
    ids=lambda o: "-".join(o),
)
def test_unpacked_equals_torch(settings: dict[str, Any], options: dict[str, Any]) -> None:
    module = attention(**settings)
    unpacked = unpack_attention(copy.deepcopy(module))
    assert type(unpacked) is UnpackedMultiheadAttention
    k = rows(2, 5, 8) if "kdim" in settings else X
    v = rows(2, 5, 12) if "kdim" in settings else X
    inputs = [x if settings.get("batch_first", True) else x.transpose(0, 1) for x in (X, k, v)]
    for found, expected in zip(unpacked(*inputs, **options), module(*inputs, **options), strict=True):
        assert (found is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("need_weights", [True, False])
def test_without_a_batch(need_weights: bool) -> None:
    module = attention()
    unpacked = unpack_attention(copy.deepcopy(module))
    options = {"need_weights": need_weights, "key_padding_mask": HIDDEN[1]}
    expected, weights = module(X[1], X[1], X[1], **options)
    found, found_weights = unpacked(X[1], X[1], X[1], **options)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    if need_weights:
        torch.testing.assert_close(found_weights, weights, atol=1e-6, rtol=1e-5)


def test_what_stays_as_it_is() -> None:
    assert type(unpack_attention(attention(add_bias_kv=True))) is nn.MultiheadAttention
    assert type(unpack_attention(attention(add_zero_attn=True))) is nn.MultiheadAttention
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        unpack_attention(attention())(X, X, X, is_causal=True)


class Encoder(nn.Module):
    """torch's own encoder, with its fused call for evaluation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.1)
        self.eval()

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        return self.encoder(x, src_key_padding_mask=hidden)


SITES = [f"{n}_proj" for n in "qkv"] + ["out_proj"]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("core", [Int8Attention, Bfloat16Attention])
def test_torchs_encoder(core: type[nn.Module], approach: str, with_mask: bool) -> None:
    settings: dict[str, Any] = {"approach": approach, "attention": "int8" if core is Int8Attention else "bfloat16"}
    model, args = Encoder(), (X, HIDDEN) if with_mask else (X,)
    data = [args] if approach == "static" else None
    int8: Any = quantize(model, Int8Config(**settings), data, progress=False)
    layer = int8.encoder.layers[0]
    assert all(isinstance(layer.self_attn.get_submodule(name), Int8Linear) for name in SITES)
    assert isinstance(layer.self_attn.int8_attention, core)
    assert isinstance(layer.self_attn, nn.MultiheadAttention)
    seen = ~HIDDEN if with_mask else torch.ones_like(HIDDEN)
    found, expected = int8(*args)[seen], model(*args)[seen]
    assert 0 < (found - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()
    plain: Any = quantize(model, Int8Config(**settings, fuse=False), data, progress=False)
    torch.testing.assert_close(plain(*args)[seen], found, atol=0.02, rtol=0.02)


@pytest.mark.slow
@torch.no_grad()
def test_the_recipe_names_projections_and_core_and_equals_quantize(tmp_path: Path) -> None:
    model = Encoder()
    conf = QuantConf()
    with calibrate(conf):
        model(X, HIDDEN)
    conf.save(tmp_path / "configure.json")
    ops = [op for op in conf.ops if op.is_quantized]
    names = [op.module for op in ops[:7]]
    prefix = "encoder.layers.0"
    attention_names = [f"{prefix}.self_attn.{p}" for p in SITES[:3]] + [f"{prefix}.self_attn"]
    assert names == [*attention_names, f"{prefix}.self_attn.out_proj", f"{prefix}.linear1", f"{prefix}.linear2"]
    assert [op.name for op in ops[:4]] == ["linear"] * 3 + ["attention"]
    int8 = convert(model, QuantConf(tmp_path / "configure.json"), (X, HIDDEN))
    direct = quantize(model, Int8Config(approach="static"), [(X, HIDDEN)], progress=False)
    # torch's own float products may differ in their last bit from call to call, and with them a range
    torch.testing.assert_close(int8.state_dict(), direct.state_dict(), rtol=1e-6, atol=0)
    torch.testing.assert_close(int8(X, HIDDEN), direct(X, HIDDEN), rtol=1e-5, atol=1e-5)
    ops[3].inputs_quantized = [False] * 3
    ops[4].inputs_quantized = [False]
    edited: Any = convert(model, conf, (X, HIDDEN))
    first = edited.encoder.layers[0].self_attn
    assert "int8_attention" not in first._modules and type(first.out_proj) is nn.Linear
    assert isinstance(first.q_proj, Int8Linear)
    assert type(model.encoder.layers[0].self_attn) is nn.MultiheadAttention


class Cross(nn.Module):
    """Queries from one sequence, keys and values from another."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = attention()

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.cross(x, memory, memory, need_weights=False)[0]


@pytest.mark.slow
@torch.no_grad()
def test_module_checkpoint_and_file_agree_to_the_bit(tmp_path: Path) -> None:
    for model, args in ((Encoder(), (X,)), (Cross().eval(), (X, MEMORY))):
        conf = QuantConf()
        with calibrate(conf):
            model(*args)
        int8: Any = convert(model, conf, args)
        expected = int8(*args)
        int8.save(tmp_path / "model.pt2")
        assert torch.equal(optimum_int8.load(tmp_path / "model.pt2")(*args), expected)
        kinds = {f"{n}.{p}": "linear" for n, m in int8.named_modules() if hasattr(m, "int8_attention") for p in SITES}
        kinds |= {n: "attention" for n, m in int8.named_modules() if hasattr(m, "int8_attention")}
        kinds |= {n: "linear" for n, m in int8.named_modules() if isinstance(m, Int8Linear)}
        metadata = {"config": Int8Config(approach="static").to_dict(), "modules": kinds}
        assert torch.equal(reloaded(type(model)(), int8, metadata)(*args), expected)


@torch.no_grad()
def test_weights_are_asked_for() -> None:
    model = nn.ModuleList([attention()])
    int8: Any = quantize(attention_only(model), Int8Config(approach="dynamic"))
    y, weights = int8(X)
    expected, expected_weights = model[0](X, X, X)
    assert (weights - expected_weights).abs().max() < 0.02
    assert 0 < (y - expected).abs().max() < 0.2


def attention_only(holder: nn.ModuleList) -> nn.Module:
    class Weights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = holder[0]

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
            return self.attention(x, x, x)

    return Weights().eval()


@pytest.mark.slow
def test_training_with_fake_quantization() -> None:
    from optimum_int8.training import convert_qat, prepare_qat

    model = prepare_qat(Encoder(), Int8Config(approach="qat"), [(X,)], progress=False)
    model.train()(X).square().mean().backward()
    assert model.encoder.layers[0].self_attn.q_proj.weight.grad is not None
    int8: Any = convert_qat(model.eval())
    with torch.no_grad():
        expected = model(X)
        assert (int8(X) - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()
