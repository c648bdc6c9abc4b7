"""`Int8Conv1d` and `Int8Conv2d`: results near the float module's, tensors as documented, checkpoints to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optimum_int8 import Int8Config, QuantizationError, quantize
from optimum_int8.nn import Int8Conv, Int8Conv1d, Int8Conv2d
from optimum_int8.sites import find_sites

MODULES = {
    "plain": lambda: nn.Conv2d(3, 8, 3, padding=1),
    "stride": lambda: nn.Conv2d(5, 33, (3, 5), stride=(2, 1), padding=(0, 2)),
    "same": lambda: nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(1, 2)),
    "valid": lambda: nn.Conv2d(4, 6, 3, padding="valid"),
    "groups": lambda: nn.Conv2d(12, 8, 3, groups=4, bias=False),
    "depthwise": lambda: nn.Conv2d(20, 20, 3, padding=1, groups=20),
    "1d": lambda: nn.Conv1d(6, 7, 5, stride=2, padding=2),
    "1d depthwise": lambda: nn.Conv1d(9, 9, 4, groups=9),
}


def made(name: str, static: bool = True) -> tuple[nn.Module, Int8Conv, torch.Tensor]:
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    size = (2, module.in_channels, *([23] if isinstance(module, nn.Conv1d) else [11, 13]))
    x = torch.randn(size)
    low, high = x.aminmax()
    return module, Int8Conv.from_float(module, (low.item(), high.item()) if static else None), x


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_near_the_float_module(name: str, static: bool) -> None:
    module, int8, x = made(name, static)
    with torch.no_grad():
        expected, found = module(x), int8(x)
    assert found.shape == expected.shape and found.dtype == x.dtype
    assert (found - expected).norm() / expected.norm() < 0.03
    torch.testing.assert_close(int8(x[0]), found[0] if static else int8(x[:1])[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", MODULES)
def test_state_goes_through_a_skeleton_to_the_bit(name: str) -> None:
    module, int8, x = made(name)
    state = int8.state_dict()
    assert state["weight"].shape == (*module.weight.shape, 1) and state["weight"].dtype == torch.int8
    new = Int8Conv.like(module)
    new.load_state_dict(state)
    assert torch.equal(new(x), int8(x))
    again = new.state_dict()
    assert all(torch.equal(again[key], state[key]) for key in state) and again.keys() == state.keys()
    new.load_state_dict(state)  # also where the weight is packed already
    assert torch.equal(new(x), int8(x))


def test_the_weight_reads_as_the_float_modules() -> None:
    module, int8, _ = made("groups")
    assert int8.weight.shape == module.weight.shape and int8.weight.dtype == module.weight.dtype
    assert (int8.weight - module.weight).abs().max() <= int8.weight_scale.max() / 2 * 1.001


def test_casting_the_model_keeps_what_is_stored() -> None:
    _, int8, x = made("plain")
    expected = int8(x.bfloat16())
    assert expected.dtype == torch.bfloat16
    assert torch.equal(int8.to(torch.bfloat16)(x.bfloat16()), expected) and int8.weight_scale.dtype == torch.float32


def test_what_cannot_be_quantized_says_why() -> None:
    class Scaled(nn.Conv2d):
        pass

    model = nn.Sequential()
    model.add_module("fine", nn.Conv1d(4, 4, 1))
    model.add_module("reflect", nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))
    model.add_module("own", Scaled(4, 4, 1))
    model.add_module("huge", nn.Conv2d(8000, 1, 3))
    model.add_module("normed", nn.utils.weight_norm(nn.Conv1d(4, 4, 3)))
    model.add_module("broad", nn.Conv2d(2, 2, (519, 1), groups=2))
    sites = find_sites(model, Int8Config())
    assert sites.int8 == {"fine": "conv"}
    for name, reason in {
        "reflect": "padding_mode",
        "own": "forward of its own",
        "huge": "overflow",
        "normed": "computed from others",
        "broad": "519 taps",
    }.items():
        assert reason in sites.fp32[name]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.never = nn.Conv2d(3, 4, 3), nn.Conv1d(4, 5, 3), nn.Conv2d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)).flatten(2))


def test_static_quantization_calibrates_convolutions() -> None:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(2, 3, 8, 8)
    int8 = quantize(model, Int8Config(approach="static"), [x])
    assert isinstance(int8.first, Int8Conv2d) and isinstance(int8.second, Int8Conv1d)
    assert type(int8.never) is nn.Conv2d  # no batch reached it
    assert int8.first.input_scale == pytest.approx((x.max() - x.min()).item() / 255, rel=1e-4)
    with torch.no_grad():
        assert (int8(x) - model(x)).norm() / model(x).norm() < 0.03


def test_a_model_that_is_one_convolution_is_refused() -> None:
    with pytest.raises(QuantizationError, match="single Conv2d"):
        quantize(nn.Conv2d(3, 3, 1))


def test_weights_must_be_finite() -> None:
    model = Net()
    model.first.weight.data[0] = float("nan")
    with pytest.raises(QuantizationError, match=r"first.*not finite"):
        quantize(model)
