"""Sums and concatenations on INT8 in the recipe: `inputs_quantized` and `outputs_quantized` take effect, saved, loaded, exported."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optimum_int8
from optimum_int8 import ConfigError, QuantConf, calibrate, convert, numerics
from optimum_int8.hub.checkpoint import check_metadata
from optimum_int8.nn import Int8Add, Int8Cat
from optimum_int8.passes import inspect, remove
from tests.models import reloaded


class Joined(nn.Module):
    """A sum and a concatenation between linears."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 40), nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = torch.relu(self.c(y + self.b(x)))
        return self.d(torch.cat((y, z), dim=-1))


EXAMPLE = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(5))


def made() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Joined()).eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    conf = QuantConf()
    with torch.no_grad(), calibrate(conf):
        made()(EXAMPLE)
    conf.save(tmp_path / "configure.json")
    return tmp_path / "configure.json"


def edit(path: Path, name: str, **values: Any) -> Path:
    ops = json.loads(path.read_text())
    next(op for op in ops if op["name"] == name).update(values)
    path.write_text(json.dumps(ops, indent=4))
    return path


def converted(path: Path) -> Any:
    return convert(made(), QuantConf(path), EXAMPLE)


BOTH = {"inputs_quantized": [True, True], "outputs_quantized": [True]}


@torch.no_grad()
def test_outputs_quantized_rounds_the_result(path: Path) -> None:
    before: Any = converted(path)
    assert not any(isinstance(m, (Int8Add, Int8Cat)) for m in before.modules())
    after = converted(edit(path, "add", outputs_quantized=[True]))
    (total,) = [m for m in after.modules() if isinstance(m, Int8Add)]
    op = next(op for op in QuantConf(path).ops if op.name == "add")
    assert float(total.output_scale) == pytest.approx(op.output_scales[0])
    assert int(total.output_zero_point) == op.output_zero_points[0]
    x, y = torch.randn(2, 24), torch.randn(2, 24)
    grid = total.output_scale, total.output_zero_point
    assert torch.equal(total(x, y), numerics.dequantize_affine(numerics.quantize_affine(x + y, *grid), *grid))
    assert torch.equal(after(EXAMPLE), before(EXAMPLE))  # what reads the sum alone has its range, and so its grid
    coarse = converted(edit(path, "add", output_scales=[op.output_scales[0] * 4]))
    assert not torch.equal(coarse(EXAMPLE), before(EXAMPLE))


@torch.no_grad()
def test_a_symmetric_result(path: Path) -> None:
    plain = converted(edit(path, "cat", **BOTH))
    symmetric = converted(edit(path, "cat", output_quantized_dtypes=["int8"]))
    grids = [next(m for m in int8.modules() if isinstance(m, Int8Cat)) for int8 in (plain, symmetric)]
    assert int(grids[1].output_zero_point) == 128 != int(grids[0].output_zero_point)
    assert float(grids[1].output_scale) > float(grids[0].output_scale)


@torch.no_grad()
def test_a_block_holds_them_as_int8(path: Path) -> None:
    edit(path, "add", **BOTH)
    int8 = converted(edit(path, "cat", **BOTH))
    exact = made()(EXAMPLE)
    assert (int8(EXAMPLE) - exact).square().mean() < 0.02 * exact.square().mean()
    (row,) = inspect(int8).blocks
    assert row.left_in_torch == []
    assert (
        row.instructions == 1 + 4 + 1 + 2
    )  # the input, linears, the sum, two parts; the readers are on the results' grids


@pytest.mark.slow
@torch.no_grad()
def test_unfused_checkpoint_and_file_agree_to_the_bit(path: Path, tmp_path: Path) -> None:
    edit(path, "add", **BOTH)
    int8 = converted(edit(path, "cat", **BOTH))
    int8.save(tmp_path / "sums.pt2")
    metadata = json.loads(json.dumps(int8.int8_metadata))
    assert check_metadata(metadata)["functional"]["0.cat_3"]["output_quantized"] is True
    again = reloaded(nn.Sequential(Joined()), int8)
    unfused = copy.deepcopy(int8)
    remove(unfused)
    loaded = optimum_int8.load(tmp_path / "sums.pt2")
    for x in (EXAMPLE, EXAMPLE[:1], EXAMPLE.repeat(2, 3, 1)):
        expected = unfused(x)
        assert [torch.equal(twin(x), expected) for twin in (int8, again, loaded)] == [True] * 3


def test_calibrating_again_keeps_the_edit(path: Path) -> None:
    conf = QuantConf(edit(path, "add", outputs_quantized=[True]))
    with torch.no_grad(), calibrate(conf):
        made()(EXAMPLE * 2)
    op = next(op for op in conf.ops if op.name == "add")
    assert op.outputs_quantized == [True] and op.output_quantized
    assert op.output_scales != next(op for op in QuantConf(path).ops if op.name == "add").output_scales


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("add", {"outputs_quantized": [True], "output_scales": []}, "output_scales of op .* one value"),
        ("add", {"outputs_quantized": [True], "output_zero_points": [1, 2]}, "output_zero_points of op .* one value"),
        (
            "linear",
            {"outputs_quantized": [True]},
            "outputs_quantized of op .* false: a result is rounded by the op that reads it",
        ),
    ],
)
def test_impossible_edits(path: Path, name: str, values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        converted(edit(path, name, **values))


def test_a_malformed_flag_is_refused(path: Path) -> None:
    metadata = converted(edit(path, "add", **BOTH)).int8_metadata
    (name,) = metadata["functional"]
    metadata["functional"][name]["output_quantized"] = "yes"
    with pytest.raises(optimum_int8.CheckpointError, match="functional"):
        check_metadata(metadata)
