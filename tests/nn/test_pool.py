"""`Int8AvgPool`: as torch's average pooling on the grid of its input, through calibration, checkpoints, training and export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import optimum_int8
from optimum_int8 import CheckpointError, Int8Config, numerics, quantize
from optimum_int8.nn import Int8AvgPool, Int8AvgPool1d, Int8AvgPool2d
from optimum_int8.nn.fake import FakeQuantizedAvgPool
from optimum_int8.passes import find_blocks, inspect, remove
from optimum_int8.restore import build_skeleton
from optimum_int8.sites import find_sites
from optimum_int8.training.prepare import convert_qat, prepare_qat, remove_fake_quantize
from tests.models import reloaded

MODULES = {
    "2x2": lambda: nn.AvgPool2d(2),
    "padding": lambda: nn.AvgPool2d(3, 2, 1),
    "padding does not count": lambda: nn.AvgPool2d((3, 2), (2, 1), (1, 0), count_include_pad=False),
    "ceil": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "ceil, padding does not count": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "whole": lambda: nn.AdaptiveAvgPool2d((1, 1)),
    "1d": lambda: nn.AvgPool1d(4, 3, 1, ceil_mode=True),
    "1d whole": lambda: nn.AdaptiveAvgPool1d(1),
}


def is_1d(name: str) -> bool:
    return name.startswith("1d")


@pytest.mark.parametrize("name", MODULES)
def test_as_the_float_module_on_the_grid(name: str) -> None:
    torch.manual_seed(0)
    module, x = MODULES[name](), torch.randn(2, 37, *([14] if is_1d(name) else [11, 8]))
    int8 = Int8AvgPool.from_float(module, (-2.0, 3.0))
    grid = int8.input_scale, int8.input_zero_point
    expected = module(numerics.dequantize_affine(numerics.quantize_affine(x, *grid), *grid))
    assert type(int8) is (Int8AvgPool1d if is_1d(name) else Int8AvgPool2d)
    torch.testing.assert_close(int8(x), expected)
    torch.testing.assert_close(int8(x[0]), int8(x)[0], rtol=0, atol=0)
    assert int8(x.bfloat16()).dtype == torch.bfloat16


def test_fewer_levels_clip() -> None:
    int8 = Int8AvgPool.from_float(nn.AvgPool2d(1), (0.0, 15.0), 4)
    torch.testing.assert_close(int8(torch.tensor([[[[3.0, 99.0]]]])), torch.tensor([[[[3.0, 15.0]]]]))


class Scaled(nn.Module):
    """A convolution whose channels are scaled by what the means of all say, pooled, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool, self.second = nn.Conv2d(3, 20, 3), nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(20, 40, 1)
        self.whole, self.scale = nn.AdaptiveAvgPool2d(1), nn.Conv2d(40, 40, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.pool(torch.relu(self.first(x))))
        return y * torch.sigmoid(self.scale(self.whole(y)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.linear = Scaled(), nn.AdaptiveAvgPool2d(1), nn.Linear(40, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.head(self.body(x)).flatten(1))


def net() -> tuple[Net, torch.Tensor]:
    torch.manual_seed(0)
    return Net().eval(), torch.randn(4, 3, 13, 12)


@torch.no_grad()
def test_static_quantization_makes_sites_of_poolings() -> None:
    model, x = net()
    int8 = quantize(model, Int8Config(approach="static"), [x])
    assert {n for n, m in int8.named_modules() if isinstance(m, Int8AvgPool)} == {"body.pool", "body.whole", "head"}
    found = int8(x)
    assert (found - model(x)).norm() / model(x).norm() < 0.03
    assert any(block.variants for block in find_blocks(int8).values())
    assert "head" in inspect(int8).single
    remove(int8)
    assert torch.equal(int8(x), found)  # module by module, to the bit


@torch.no_grad()
def test_dynamic_quantization_pools_floats_and_says_so() -> None:
    model, x = net()
    int8 = quantize(model, Int8Config())
    int8(x)
    assert type(int8.head) is nn.AdaptiveAvgPool2d
    assert "dynamic" in inspect(int8).fp32["body.pool"]


@pytest.mark.slow
@torch.no_grad()
def test_a_checkpoint_gives_the_same_bits_and_an_older_one_pools_floats() -> None:
    model, x = net()
    for exclude in ((), ("AvgPool2d", "AdaptiveAvgPool2d")):  # the latter: as before poolings were sites
        int8 = quantize(model, Int8Config(approach="static", exclude_types=exclude), [x])
        metadata = int8.int8_metadata
        assert any(kind == "pool" for kind in metadata["modules"].values()) == (not exclude)
        assert torch.equal(reloaded(Net(), int8)(x), int8(x))


def test_a_checkpoint_that_does_not_fit_is_refused() -> None:
    model, x = net()
    metadata = quantize(model, Int8Config(approach="static"), [x]).int8_metadata
    other = Net()
    other.head = nn.AdaptiveAvgPool2d(2)
    with pytest.raises(CheckpointError, match="'head' is an INT8 pool"):
        build_skeleton(other, metadata)


@pytest.mark.slow
@torch.no_grad()
def test_a_deployed_model_gives_the_same_bits(tmp_path: Path) -> None:
    model, x = net()
    int8 = quantize(model, Int8Config(approach="static"), [x])
    optimum_int8.save(int8, tmp_path / "model.pt2", x)
    loaded = optimum_int8.load(tmp_path / "model.pt2")
    for images in (x, x[:1]):
        assert torch.equal(loaded(images), int8(images))


def test_training_fakes_the_grid_of_the_input() -> None:
    model, x = net()
    prepared = prepare_qat(model, Int8Config(approach="qat"), [x])
    assert isinstance(prepared.head, FakeQuantizedAvgPool) and isinstance(prepared.head, nn.AdaptiveAvgPool2d)
    prepared.train()(x).sum().backward()
    assert prepared.head.input_fake_quantize.log_gain.grad is not None
    with torch.no_grad():
        prepared.head.input_fake_quantize.log_gain.fill_(0.3)
        int8 = convert_qat(prepared.eval())
        assert int8.head.input_scale == pytest.approx(float(prepared.head.input_fake_quantize.current_scale()))
        torch.testing.assert_close(int8(x), prepared(x), rtol=1e-3, atol=1e-3)
    assert type(remove_fake_quantize(prepared).head) is nn.AdaptiveAvgPool2d


def test_what_cannot_be_quantized_says_why() -> None:
    class Own(nn.AvgPool2d):
        pass

    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(1, 1, 1))
    model.add_module("divisor", nn.AvgPool2d(2, divisor_override=3))
    model.add_module("seven", nn.AdaptiveAvgPool2d((7, 7)))
    model.add_module("row", nn.AdaptiveAvgPool2d((None, 1)))
    model.add_module("dropped", nn.AvgPool2d(2, 3, ceil_mode=True))
    model.add_module("own", Own(2))
    model.add_module("huge", nn.AvgPool2d(4096))
    sites = find_sites(model, Int8Config(approach="static"))
    assert sites.int8 == {"conv": "conv"}
    for name, reason in {
        "divisor": "divisor of its own",
        "seven": "(7, 7)",
        "row": "(None, 1)",
        "dropped": "size of the image",
        "own": "forward of its own",
        "huge": "overflow",
    }.items():
        assert reason in sites.fp32[name]


def test_outliers_among_the_pixels_keep_a_pooling_in_float() -> None:
    """The mean of 4096 pixels averages the error of an outlier away that is felt in the mean of 4."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two, self.whole, self.conv = nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.conv(self.two(x)), self.conv(self.whole(x))

    model, x = Two(), torch.randn(2, 16, 64, 64)
    for outlier, kept in ((4.0, set()), (60.0, {"two"}), (9000.0, {"two", "whole"})):
        x[0, 0, 0, 0] = outlier
        reasons = quantize(model.eval(), Int8Config(approach="static"), [x]).int8_metadata["fp32"]
        assert set(reasons) == kept and all("max_lost_bits" in reason for reason in reasons.values())
