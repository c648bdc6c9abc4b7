"""Transformers initializes what it takes for missing weights while it loads: nothing of what is INT8 may change or fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.nn import Int8Linear

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
IMAGE = {"pixel_values": torch.rand(2, 3, 32, 32)}
IDS = {"input_ids": torch.arange(2, 16).view(2, 7)}


def siglip() -> PreTrainedModel:
    config = transformers.SiglipVisionConfig(**SIZES, image_size=32, patch_size=8)
    return transformers.SiglipVisionModel(config)


def swinv2() -> PreTrainedModel:
    config = transformers.Swinv2Config(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    return transformers.Swinv2ForImageClassification(config)


def olmo() -> PreTrainedModel:
    return transformers.OlmoForCausalLM(transformers.OlmoConfig(vocab_size=64, **SIZES))


def modernbert_decoder() -> PreTrainedModel:
    special = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], 1)
    config = transformers.ModernBertDecoderConfig(vocab_size=64, **SIZES, **special, sliding_window=8)
    return transformers.ModernBertDecoderForCausalLM(config)


def modernbert() -> PreTrainedModel:
    special = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], 1)
    return transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(vocab_size=64, **SIZES, **special))


def funnel() -> PreTrainedModel:
    config = transformers.FunnelConfig(vocab_size=64, d_model=32, n_head=2, d_head=16, d_inner=64, block_sizes=[1, 1])
    return transformers.FunnelForMaskedLM(config)


@pytest.mark.parametrize(
    ("build", "batch"),
    [(siglip, IMAGE), (swinv2, IMAGE), (olmo, IDS), (modernbert, IDS), (modernbert_decoder, IDS), (funnel, IDS)],
)
def test_reloads_to_the_bit(build: Callable[[], PreTrainedModel], batch: dict[str, Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build().eval()
    int8 = quantize(model, Int8Config(fuse=False), progress=False)
    OptimizedModel.save_pretrained(int8, tmp_path)
    again = OptimizedModel.from_pretrained(tmp_path)
    assert again.dtype == int8.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(again(**batch)[0], int8(**batch)[0])
    state = again.state_dict()
    for name, tensor in int8.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_a_model_of_int8_modules_alone_has_a_dtype_and_a_device() -> None:
    int8 = quantize(nn.Sequential(nn.Linear(8, 8, bias=False)).eval(), Int8Config(fuse=False), progress=False)
    assert isinstance(int8[0], Int8Linear)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        parameter = next(int8.to(dtype).parameters())
        assert parameter.dtype == int8[0].weight.dtype == dtype
        assert parameter.device.type == "cpu"
    assert set(int8.state_dict()) == {"0.weight", "0.weight_scale"}
    assert sum(p.numel() for p in int8.parameters()) == 0
    int8.load_state_dict(int8.state_dict())
    assert next(int8.to("meta").parameters()).device.type == "meta"


def test_an_unpacked_attention_answers_with_its_packed_projections() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)).eval()
    int8 = quantize(model, Int8Config(fuse=False), progress=False)
    packed = model[0].self_attn
    found = int8[0].self_attn
    assert torch.equal(found.in_proj_bias, packed.in_proj_bias)
    assert (found.in_proj_weight - packed.in_proj_weight).norm() < 0.01 * packed.in_proj_weight.norm()
