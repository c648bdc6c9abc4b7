"""`Int8Conv3d`: near the float module, equal to a linear on its patches, to the bit through a checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.nn import Int8Conv3d, Int8Linear
from optimum_int8.sites import find_sites

SIZES = {"one patch": (2, 4, 4), "several": (5, 9, 13), "none": (1, 4, 4)}


def made(static: bool, bias: bool = True) -> tuple[nn.Conv3d, Int8Conv3d]:
    torch.manual_seed(0)
    module = nn.Conv3d(3, 17, (2, 4, 4), stride=(2, 4, 4), bias=bias).eval()
    return module, Int8Conv3d.from_float(module, (-3.5, 3.5) if static else None)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("size", ["one patch", "several"])
def test_near_the_float_module(size: str, static: bool) -> None:
    module, int8 = made(static)
    x = torch.randn(3, 3, *SIZES[size])
    with torch.no_grad():
        expected, found = module(x), int8(x)
        assert found.shape == expected.shape and found.dtype == x.dtype
        assert (found - expected).norm() / expected.norm() < 0.03
        assert torch.equal(int8(x[0]), found[0])
        assert torch.equal(int8(x.transpose(3, 4).contiguous().transpose(3, 4)), found), "whatever the strides"


@pytest.mark.parametrize("static", [True, False])
def test_equals_the_linear_on_its_patches(static: bool) -> None:
    module, int8 = made(static, bias=False)
    linear = nn.Linear(3 * 2 * 4 * 4, 17, bias=False)
    linear.weight = nn.Parameter(module.weight.detach().flatten(1))
    x = torch.randn(5, 3, 2, 4, 4)
    with torch.no_grad():
        expected = Int8Linear.from_float(linear, (-3.5, 3.5) if static else None)(x.flatten(1))
        assert torch.equal(int8(x).flatten(1), expected)


def test_the_weight_reads_as_the_float_modules() -> None:
    module, int8 = made(True)
    assert int8.weight.shape == module.weight.shape and int8.weight.dtype == torch.float32
    assert (int8.weight.clone() - module.weight).abs().max() <= int8.weight_scale.max()
    assert int8.half().weight.dtype == torch.float16


def test_the_gradient_is_that_of_the_float_convolution() -> None:
    module, int8 = made(True)
    x = torch.randn(2, 3, 4, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(int8(x).square().sum(), x)
    (expected,) = torch.autograd.grad(module(x).square().sum(), x)
    assert (gradient - expected).norm() / expected.norm() < 0.05


def test_no_patches() -> None:
    module, int8 = made(False)
    with torch.no_grad():
        assert int8(torch.randn(0, 3, 2, 4, 4)).shape == module(torch.randn(0, 3, 2, 4, 4)).shape


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stride": 1}, "patches touch"),
        ({"stride": 2, "padding": 1}, "patches touch"),
        ({"stride": 1, "padding": "same"}, "patches touch"),
        ({"stride": 2, "groups": 3}, "patches touch"),
        ({"stride": 2, "dilation": 2}, "dilation"),
        ({"stride": 2, "padding": "valid"}, ""),
        ({"stride": 2, "padding": 0, "bias": False}, ""),
    ],
)
def test_what_stays_float_says_why(options: dict[str, Any], reason: str) -> None:
    model = nn.Sequential(nn.Conv3d(3, 6, 2, **options), nn.Linear(2, 2))
    sites = find_sites(model, Int8Config(approach="dynamic"))
    assert ("0" in sites.int8) == (not reason)
    assert reason in sites.fp32.get("0", "")


def video() -> nn.Module:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    config = VideoMAEConfig(**sizes, image_size=16, patch_size=8, num_frames=4, tubelet_size=2, num_labels=7)
    return VideoMAEForVideoClassification(config).eval()


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_a_video_model_is_saved_and_loaded_to_the_bit(approach: str, tmp_path: Path) -> None:
    model = video()
    batch = {"pixel_values": torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))}
    data = [batch] if approach == "static" else None
    int8 = quantize(copy.deepcopy(model), Int8Config(approach=approach), data, progress=False)
    projection = int8.videomae.embeddings.patch_embeddings.projection
    assert isinstance(projection, Int8Conv3d)

    def logits(model: nn.Module) -> Tensor:
        with torch.no_grad():
            return model(**batch).logits

    found, expected = logits(int8), logits(model)
    assert (found - expected).norm() / expected.norm() < 0.1
    OptimizedModel.save_pretrained(int8, tmp_path)
    assert torch.equal(logits(OptimizedModel.from_pretrained(tmp_path)), found)
