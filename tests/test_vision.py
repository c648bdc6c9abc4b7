"""Vision models of Transformers: quantized, saved, loaded back to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from optimum_int8 import Int8Config, OptimizedModel, inspect, kernels, quantize
from optimum_int8.nn import Int8Conv2d


def resnet(layer_type: str = "bottleneck") -> PreTrainedModel:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 24], depths=[2, 1], layer_type=layer_type, num_labels=5, num_channels=3
    )
    model = ResNetForImageClassification(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0.0, 0.2)
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model


def vit() -> PreTrainedModel:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=5))


def convnext() -> PreTrainedModel:
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=5, layer_scale_init_value=1.0)
    return ConvNextForImageClassification(config)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {"resnet": resnet, "vit": vit, "convnext": convnext}


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("name", MODELS)
def test_quantize_save_and_load_to_the_bit(name: str, approach: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), torch.randn(2, 3, 32, 32)
    int8 = quantize(model, Int8Config(approach=approach), [{"pixel_values": x}], progress=False)
    assert any(isinstance(module, Int8Conv2d) for module in int8.modules())
    with torch.no_grad():
        expected, found = model(x).logits, int8(x).logits
        again = int8(x).logits
    assert (found - expected).norm() / expected.norm() < 0.1
    assert torch.equal(found, again)
    OptimizedModel.save_pretrained(int8, tmp_path)
    loaded = OptimizedModel.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    with torch.no_grad():
        assert torch.equal(loaded(x).logits, found)


@pytest.mark.slow
@pytest.mark.skipif(
    kernels.info()["isa_used"] == "torch", reason="without the native library nothing becomes a program"
)
def test_an_encoder_of_images_is_one_program_and_its_stages_where_they_are_listened_to() -> None:
    torch.manual_seed(0)
    model, x = resnet().eval(), torch.randn(1, 3, 32, 32)
    int8 = quantize(model, Int8Config(approach="static"), [{"pixel_values": x}], progress=False)
    states = []
    with torch.no_grad():
        whole = int8(x).logits
        assert "resnet.encoder" in [block.path for block in inspect(int8).blocks]
        handle = int8.resnet.encoder.stages[0].register_forward_hook(lambda _, args, output: states.append(output))
        parts = int8(x).logits
        handle.remove()
        assert torch.equal(int8(x).logits, whole)
    assert len(states) == 1 and not inspect(int8).failures
    assert "resnet.encoder.stages.1" in [block.path for block in inspect(int8).blocks]
    assert (parts - whole).norm() / whole.norm() < 0.02  # between stages is float32
