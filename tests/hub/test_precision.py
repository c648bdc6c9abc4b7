"""Models in 16 bits, and a model's own tensors that are called like an INT8 module's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from optimum_int8 import CheckpointError, Int8Config, OptimizedModel, quantize
from optimum_int8.hub import checkpoint

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
IMAGES = {**SIZES, "image_size": 16, "patch_size": 8}


def bert() -> PreTrainedModel:
    return transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=64, **SIZES))


def llama() -> PreTrainedModel:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=64, **SIZES))


def vit() -> PreTrainedModel:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**IMAGES))


def deit() -> PreTrainedModel:
    return transformers.DeiTForImageClassification(transformers.DeiTConfig(**IMAGES))


def clip_vision() -> PreTrainedModel:
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**IMAGES))


def inputs(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor]:
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(2, 3, 16, 16).to(dtype)}
    return {"input_ids": torch.randint(5, 60, (2, 7))}


def result(model: Any, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch)[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", [bert, llama, vit, deit, clip_vision])
def test_a_16_bit_model_becomes_float32_beside_int8(
    build: Callable[[], PreTrainedModel], dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build().eval().to(dtype)
    model.config.dtype = dtype
    batch = inputs(model, dtype)
    expected = result(model.float(), {k: v.float() if v.is_floating_point() else v for k, v in batch.items()})
    int8 = quantize(model.to(dtype), Int8Config(fuse=False), progress=False)
    assert model.dtype == dtype
    assert int8.dtype == int8.config.dtype == torch.float32
    found = result(int8, batch)
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.05 * expected.norm()
    OptimizedModel.save_pretrained(int8, tmp_path)
    again = OptimizedModel.from_pretrained(tmp_path)
    assert again.dtype == torch.float32
    assert torch.equal(result(again, batch), found)
    half = again.to(dtype)
    assert result(half, batch).dtype == dtype
    assert (result(half, batch) - expected).norm() < 0.05 * expected.norm()
    OptimizedModel.save_pretrained(half, tmp_path / "half")
    again = OptimizedModel.from_pretrained(tmp_path / "half")
    assert again.dtype == torch.float32
    stored = half.state_dict()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, stored[name].to(tensor.dtype)), name


@torch.no_grad()
def test_blocks_of_a_16_bit_model_are_fused() -> None:
    torch.manual_seed(0)
    model = vit().eval()
    batch = inputs(model, torch.bfloat16)
    int8 = quantize(model.bfloat16(), Int8Config(), progress=False)
    unfused = quantize(model, Int8Config(fuse=False), progress=False)
    found = result(int8, batch)
    assert any(vars(module).get("forward") for module in int8.modules())
    assert (found - result(unfused, batch)).norm() < 0.02 * found.norm()


@pytest.mark.parametrize("fuse", [True, False])
def test_any_module_in_16_bits(fuse: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 8)).eval().bfloat16()
    x = torch.randn(4, 32)
    with torch.no_grad():
        expected = model.float()(x)
        int8 = quantize(model.bfloat16(), Int8Config(fuse=fuse), progress=False)
        assert int8[1].weight.dtype == torch.float32
        assert (int8(x.bfloat16()).float() - expected).norm() < 0.03 * expected.norm()
        assert (int8(x) - expected).norm() < 0.03 * expected.norm()


def clip(scale: float) -> PreTrainedModel:
    text = {**SIZES, "vocab_size": 64, "max_position_embeddings": 16}
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=dict(IMAGES), projection_dim=16)
    )
    model.logit_scale.data.fill_(scale)
    return model


def cait_like(scale: float) -> PreTrainedModel:
    config = transformers.Dinov2Config(**{k: v for k, v in IMAGES.items() if k != "intermediate_size"})
    model = transformers.Dinov2Model(config)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name:
            parameter.data.fill_(scale)
    return model


class Tracker(transformers.BertModel):
    """Holds tensors with the names of quantization parameters."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_buffer("input_scale", torch.tensor([-1.0, 0.0]))
        self.register_buffer("input_zero_point", torch.tensor([1000, -4]))
        self.register_buffer("input_max", torch.tensor(-2.0))
        self.post_init()


@pytest.mark.parametrize("build", [clip, cait_like])
@pytest.mark.parametrize("scale", [-1.5, 0.0])
def test_a_models_own_scales_may_be_negative(
    build: Callable[[float], PreTrainedModel], scale: float, tmp_path: Path
) -> None:
    int8 = quantize(build(scale).eval(), Int8Config(fuse=False), progress=False)
    OptimizedModel.save_pretrained(int8, tmp_path)
    again = OptimizedModel.from_pretrained(tmp_path)
    for name, tensor in int8.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_own_buffers_called_like_ours(tmp_path: Path) -> None:
    int8 = quantize(Tracker(transformers.BertConfig(vocab_size=64, **SIZES)).eval(), Int8Config(), progress=False)
    OptimizedModel.save_pretrained(int8, tmp_path)
    again = Tracker.from_pretrained(tmp_path)
    assert again.input_scale.tolist() == [-1.0, 0.0]
    assert again.input_zero_point.tolist() == [1000, -4]


def test_an_int8_modules_scale_is_still_checked() -> None:
    bad = torch.tensor([1.0, -1.0])
    assert checkpoint.is_ours("a.b.weight_scale", ["a.b"])
    assert checkpoint.is_ours("a.int8_attention.query_scale", ["a"])
    assert not checkpoint.is_ours("a.weight_scale", ["a.b"])
    assert not checkpoint.is_ours("a.b.embed_scale", ["a.b"])
    checkpoint.check_tensor("a.logit_scale", bad, ours=False)
    with pytest.raises(CheckpointError, match="above 0"):
        checkpoint.check_tensor("a.b.weight_scale", bad, ours=True)
