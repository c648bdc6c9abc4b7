"""The ruined sites come first, the numbers are what they say, and the model is left as it was."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from optimum_int8 import Int8Config, quantize
from optimum_int8.quantization import prepare_copy
from optimum_int8.tuning import measure_sensitivity
from optimum_int8.tuning.distribution import Distribution
from tests import zoo
from tests.tuning.helpers import DATA, OUTPUT, VALUE, hostile, relative_error


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_the_ruined_sites_come_first(approach: str) -> None:
    prepared = prepare_copy(hostile(), Int8Config(approach=approach), DATA, progress=False)
    rows = measure_sensitivity(prepared, DATA, progress=False)
    assert {rows[0].name, rows[1].name} == {OUTPUT, VALUE}
    assert len(rows) == len(prepared.sites.int8)
    assert sum(row.macs for row in rows) == pytest.approx(1.0)
    by_name = {row.name: row for row in rows}
    # Per-channel shares: what a whole-tensor error would hide behind the outliers.
    assert by_name[VALUE].site_error > 5 * by_name[VALUE.replace(".1.", ".0.")].site_error


def test_the_model_error_is_that_of_one_site_alone() -> None:
    model, name = hostile(), OUTPUT
    config = Int8Config(approach="static", fuse=False)
    prepared = prepare_copy(model, config, DATA[:1], progress=False)
    rows = {row.name: row for row in measure_sensitivity(prepared, DATA[:1], progress=False)}
    others = tuple(n for n, kind in prepared.sites.int8.items() if n != name and kind != "attention")
    alone = quantize(
        model, Int8Config(approach="static", fuse=False, attention="float32", exclude=others), DATA[:1], progress=False
    )
    expected = relative_error(zoo.logits(alone, DATA[0]), zoo.logits(model, DATA[0]))
    assert rows[name].model_error == pytest.approx(expected, rel=1e-3)


def test_the_float_model_is_left_alone() -> None:
    model = zoo.make("gpt2")
    prepared = prepare_copy(model, Int8Config(approach="static"), [zoo.inputs(model)], progress=False)
    before = zoo.logits(prepared.model, zoo.inputs(model))
    implementation = prepared.model.config._attn_implementation
    measure_sensitivity(prepared, [zoo.inputs(model)], distributions=True, progress=False)
    assert torch.equal(zoo.logits(prepared.model, zoo.inputs(model)), before)
    assert prepared.model.config._attn_implementation == implementation
    assert not any(m._forward_hooks for m in prepared.model.modules())


@pytest.mark.parametrize("name", ["t5", "marian", "vit", "llama", "gpt2", "electra", "bart", "mbart", "pegasus"])
def test_other_architectures(name: str) -> None:
    model = zoo.make(name)
    data = [zoo.inputs(model)]
    rows = measure_sensitivity(
        prepare_copy(model, Int8Config(approach="static"), data, progress=False), data, progress=False
    )
    assert all(row.model_error is not None and row.model_error < 1.0 for row in rows)
    assert any(row.site_error > 0 for row in rows)


def test_a_convolution_is_a_site() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    data = [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))]
    rows = measure_sensitivity(
        prepare_copy(model, Int8Config(approach="static"), data, progress=False), data, progress=False
    )
    share = {row.kind: row.macs for row in rows}
    assert share["conv"] == pytest.approx(36 * 4 * 27 / (36 * 4 * 27 + 144 * 5))


def test_a_deadline_leaves_the_errors_of_the_sites() -> None:
    prepared = prepare_copy(zoo.make("bert"), Int8Config(approach="static"), DATA, progress=False)
    rows = measure_sensitivity(prepared, DATA, deadline=time.monotonic(), progress=False)
    assert all(row.model_error is None for row in rows) and rows[0].error > 0


def test_the_clipped_share() -> None:
    values = torch.linspace(-1.0, 3.0, 4001)
    distribution = Distribution((-1.0, 2.0))
    for part in values.split(1000):
        distribution.add(part)
    assert distribution.clipped() == pytest.approx(0.25, abs=0.01)
    edges, shares = distribution.pieces()
    assert len(edges) == len(shares) + 1 and shares.sum() == pytest.approx(1.0)
    assert (edges[0], edges[-1]) == (-1.0, 3.0)
    assert distribution.spread() == pytest.approx(3.0 / float(values.square().mean().sqrt()), rel=0.01)
    whole = Distribution((-1.0, 3.0))
    whole.add(values)
    assert whole.clipped() == 0.0
