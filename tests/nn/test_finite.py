"""Values that are not finite: refused with the tensor's name wherever they would reach a result, and nowhere else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import Int8Config, QuantConf, QuantizationError, calibrate, convert, quantize
from optimum_int8.nn import check_finite
from tests import zoo

DYNAMIC = Int8Config(fuse=False)


class Net(nn.Module):
    """A tensor of every kind beside the linears and convolutions that become INT8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.batch_norm = nn.BatchNorm2d(8)
        self.norm = nn.LayerNorm(8)
        self.memory = nn.LSTM(8, 8, batch_first=True)
        self.up = nn.ConvTranspose1d(8, 8, 1)
        self.classifier = nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.ones(8))
        self.token = nn.Parameter(torch.ones(2, 1, 8))
        self.hidden = nn.Parameter(torch.full((8, 8), -torch.inf).triu(1), requires_grad=False)
        self.register_buffer("causal", torch.full((8, 8), -torch.inf).triu(1))
        self.register_buffer("shift", torch.zeros(8))
        self.register_buffer("scratch", torch.full((2,), torch.nan), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.batch_norm(self.conv(x)).flatten(2).transpose(1, 2)
        rows = self.memory(self.norm(rows) * self.scale + self.token[0] + self.shift)[0]
        return self.classifier(self.up(rows.transpose(1, 2)).transpose(1, 2))


def spoiled(name: str, value: float = math.nan) -> Net:
    """A net with one such value."""
    model = Net().eval()
    with torch.no_grad():
        model.state_dict(keep_vars=True)[name].view(-1)[-1] = value
    return model


PARAMETERS = [name for name, _ in Net().named_parameters()]
STATISTICS = ["batch_norm.running_mean", "batch_norm.running_var"]


@pytest.mark.parametrize("name", [*PARAMETERS, *STATISTICS, "shift", "causal"])
def test_nan_is_refused_with_the_name_of_its_tensor(name: str) -> None:
    path, _, key = name.rpartition(".")
    owner = repr(path) if path else "the Net"
    with pytest.raises(QuantizationError, match=f"^{key} of {owner} holds values that are not finite: 1 NaN of"):
        quantize(spoiled(name), DYNAMIC, progress=False)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
@pytest.mark.parametrize("name", [*(n for n in PARAMETERS if n != "hidden"), *STATISTICS])
def test_infinity_is_refused_where_values_are_multiplied(name: str, value: float) -> None:
    with pytest.raises(QuantizationError, match="not finite: 1 infinite of"):
        quantize(spoiled(name, value), DYNAMIC, progress=False)


def test_infinite_masks_and_scratch_buffers_are_sound() -> None:
    model, x = Net().eval(), torch.randn(2, 3, 6, 6)
    int8 = quantize(model, DYNAMIC, progress=False)
    assert torch.equal(int8.causal, model.causal)
    assert torch.isfinite(int8(x)).all()
    check_finite(spoiled("shift", math.inf), DYNAMIC)  # of a buffer nobody knows what infinity means


def test_what_is_excluded_is_the_callers_business() -> None:
    for settings in ({"exclude": ("norm",)}, {"exclude_types": ("LayerNorm",)}):
        quantize(spoiled("norm.weight"), Int8Config(fuse=False, **settings), progress=False)
    quantize(spoiled("token"), Int8Config(fuse=False, exclude=("token",)), progress=False)
    with pytest.raises(QuantizationError, match="weight of 'norm'"):
        quantize(spoiled("norm.weight"), Int8Config(fuse=False, exclude=("conv",)), progress=False)


def test_a_recipe_is_refused_too() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    conf, x = QuantConf(), torch.randn(3, 4)
    with torch.no_grad(), calibrate(conf):
        model(x)
    model[1].bias.data[0] = math.nan
    with pytest.raises(QuantizationError, match="bias of '1'"):
        convert(model, conf, x)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_sound_models_are_not_refused(name: str) -> None:
    check_finite(zoo.make(name), DYNAMIC)
