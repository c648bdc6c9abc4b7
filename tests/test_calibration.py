"""Calibration: what is observed, what does not count, and that nothing of it stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import CalibrationError, Int8Config
from optimum_int8.calibration import collect_ranges
from optimum_int8.sites import find_sites
from tests.models import batch, classifier

CONFIG = Int8Config(approach="static")


def ranges_of(model: nn.Module, data: Any, config: Int8Config = CONFIG) -> dict[str, dict[str, tuple[float, float]]]:
    return collect_ranges(model, find_sites(model, config), config, data, progress=False)


def seen_by(model: nn.Module, name: str, inputs: list[dict[str, Tensor]], masked: bool) -> tuple[float, float]:
    """Plain definition: the smallest and largest value that flows into a module, of tokens that count."""
    values: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows = args[0][one["attention_mask"].bool()] if masked else args[0]
        values.append(rows.flatten())

    handle = model.get_submodule(name).register_forward_pre_hook(keep)
    with torch.no_grad():
        for one in inputs:
            model(**one)
    handle.remove()
    every = torch.cat(values)
    return float(every.min()), float(every.max())


def test_padding_does_not_count() -> None:
    model, data = classifier(), [batch(), batch(3, 12, 7, 2)]
    name = "bert.encoder.layer.1.attention.output.dense"  # past the padding's first influence
    found = ranges_of(model, data)[name]["input"]
    assert found == seen_by(model, name, data, masked=True)
    assert found != seen_by(model, name, data, masked=False)


def test_values_of_padding_do_not_move_any_range() -> None:
    model = classifier()
    one, other = batch(), batch()
    other["input_ids"][0, 5:] = torch.tensor([90, 91, 92, 93])
    assert ranges_of(model, [one]) == ranges_of(model, [other])
    unmasked = [{"input_ids": b["input_ids"]} for b in (one, other)]
    assert ranges_of(model, unmasked[:1]) != ranges_of(model, unmasked[1:])


def test_queries_keys_and_values_are_observed() -> None:
    model, data = classifier(), [batch()]
    core = "bert.encoder.layer.0.attention.self"
    found = ranges_of(model, data)[core]
    assert set(found) == {"query", "key", "value"}
    layer = model.get_submodule(core)
    with torch.no_grad():
        hidden = model.bert.embeddings(input_ids=data[0]["input_ids"])[data[0]["attention_mask"].bool()]
        for name, (low, high) in found.items():
            values = getattr(layer, name)(hidden)
            assert -low == high  # their grids are symmetric
            assert high == pytest.approx(float(values.abs().max()), rel=1e-5)


def test_reaches_every_site_of_a_model() -> None:
    model = classifier()
    sites = find_sites(model, CONFIG)
    assert set(ranges_of(model, [batch()])) == set(sites.of_kind("linear", "attention"))


def test_batches_may_be_mappings_tuples_lists_or_tensors() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    for form in ({"input": x}, (x,), [x], x):
        assert ranges_of(model, [form]) == {"0": {"input": (-2.0, 3.0)}}


def test_all_batches_count_and_a_generator_is_read_once() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    assert ranges_of(model, (torch.tensor([[float(i)]]) for i in range(-3, 6))) == {"0": {"input": (-3.0, 5.0)}}


def test_a_shared_module_is_observed_at_each_of_its_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.second = nn.Linear(2, 2, bias=False)
            with torch.no_grad():
                self.first.weight.copy_(torch.eye(2) * 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    assert ranges_of(Twice(), [torch.tensor([[1.0, -2.0]])]) == {"first": {"input": (-6.0, 3.0)}}


def test_sites_that_no_batch_reached_are_absent() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    assert set(ranges_of(Half(), [torch.ones(1, 2)])) == {"used"}


@pytest.mark.parametrize("data", [[], iter(())])
def test_no_batch_is_an_error(data: Any) -> None:
    with pytest.raises(CalibrationError, match="holds no batch"):
        ranges_of(nn.Sequential(nn.Linear(2, 2)), data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "mse", "entropy"])
def test_values_that_are_not_finite_are_an_error(value: float, observer: str) -> None:
    config = Int8Config(approach="static", observer=observer)
    with pytest.raises(CalibrationError, match="finite"):
        ranges_of(nn.Sequential(nn.Linear(2, 2)), [torch.ones(1, 2), torch.tensor([[1.0, value]])], config)


def state_of(model: nn.Module) -> tuple[Any, ...]:
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
    return hooks, model.config._attn_implementation, [m.training for m in model.modules()]


def failing() -> Iterator[dict[str, Tensor]]:
    yield batch()
    raise OSError("the disk is gone")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bad", ["none", "data", "model"])
def test_leaves_the_model_as_it_was(bad: str, training: bool) -> None:
    model = classifier()
    model(**batch())  # Transformers puts hooks of its own at the first call
    model.bert.encoder.layer[1].train(training)
    before = state_of(model)
    assert before[1] == "sdpa"
    if bad == "none":
        ranges_of(model, [batch()])
    elif bad == "data":
        with pytest.raises(OSError, match="the disk is gone"):
            ranges_of(model, failing())
    else:
        with pytest.raises(IndexError):
            ranges_of(model, [batch(), {"input_ids": torch.tensor([[1000]])}])
    assert state_of(model) == before


def test_observes_in_evaluation_mode_without_gradients() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 1)).train()
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]], requires_grad=True)
    found = ranges_of(model, [x] * 3)["1"]["input"]
    assert found[1] == 4.0  # dropout would have made it 40 or 0
    assert model.training
    assert x.grad is None
