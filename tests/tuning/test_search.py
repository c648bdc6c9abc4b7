"""Tuning keeps its budget with as little FP32 as it needs, within its limits, and goes on where it was interrupted."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from optimum_int8 import ConfigError, Int8Config, quantize
from optimum_int8.hub import OptimizedModel
from optimum_int8.tuning import tune
from optimum_int8.tuning.limit import OutOfTime, stopping
from tests import zoo
from tests.passes.test_int8_residuals import Body
from tests.tuning.helpers import DATA, OUTPUT, TEST, VALUE, fidelity, hostile, relative_error

BUDGET = 0.04
"""Between what the sites without outliers cost (about 2 %) and what those with them do (over 5 %)."""


def config(**changes: object) -> Int8Config:
    values = {"approach": "static", "accuracy_budget": BUDGET, "fuse": False, **changes}
    return Int8Config(**values)  # type: ignore[arg-type]


def test_leaves_only_the_ruined_site_in_fp32() -> None:
    model = hostile()
    metric = fidelity(model)
    result = tune(model, config(), DATA, metric, remedies=(), progress=False)
    report = result.report
    assert report.met and report.stopped == "met" and report.loss is not None and report.loss <= BUDGET
    assert report.value == pytest.approx(metric(result.model))
    names = [site.name for site in report.fp32]
    assert OUTPUT in names and len(names) <= 2
    metadata = result.model.config.quantization_config
    assert metadata["fp32"][OUTPUT].startswith("accuracy budget: alone in INT8 it changes the outputs by")
    assert OUTPUT not in metadata["modules"]
    assert metadata["tuning"]["met"] is True
    site = next(site for site in report.fp32 if site.name == OUTPUT)
    assert site.size_mb > 0 and 0 < site.macs < 0.1 and site.error > 0.03
    assert report.fp32_macs == pytest.approx(sum(s.macs for s in report.fp32))


def test_a_remedy_comes_before_fp32() -> None:
    model = hostile()
    result = tune(model, config(), DATA, fidelity(model), remedies=("smooth_quant",), progress=False)
    assert result.report.met and not result.report.fp32
    assert result.model.config.quantization_config["config"]["smooth_quant"] == "search"


def test_nothing_to_do_is_one_trial_and_equals_quantize() -> None:
    model = zoo.make("bert")
    result = tune(model, config(accuracy_budget=0.5), DATA, fidelity(model), progress=False)
    assert len(result.report.steps) == 1
    plain = quantize(model, Int8Config(approach="static", fuse=False), DATA, progress=False)
    assert torch.equal(zoo.logits(result.model, TEST), zoo.logits(plain, TEST))


@pytest.mark.parametrize(("trials", "left"), [(2, "bfloat16"), (3, "fp32")])
def test_attention_beyond_int8_is_told_core_by_core(trials: int, left: str, tmp_path: Path) -> None:
    """First bfloat16, then float32; nothing else is tried."""
    model = hostile()
    limits = config(accuracy_budget=1e-9, max_trials=trials)
    result = tune(model, limits, DATA, fidelity(model), remedies=("attention",), progress=False)
    lists = {"fp32": result.report.fp32, "bfloat16": result.report.bfloat16}
    assert [site.kind for site in lists.pop(left)] == ["attention", "attention"] and lists.popitem()[1] == []
    assert [step.what for step in result.report.steps][1:] == ["attention=bfloat16", "attention=float32"][: trials - 1]
    metadata = result.model.config.quantization_config
    assert (VALUE in metadata["fp32"]) == (left == "fp32")
    assert metadata["tuning"][left][0]["reason"].startswith(
        "accuracy budget: alone in INT8 it changes its own output by"
    )
    OptimizedModel.save_pretrained(result.model, tmp_path / "int8")
    loaded = OptimizedModel.from_pretrained(tmp_path / "int8")
    assert torch.equal(zoo.logits(loaded, TEST), zoo.logits(result.model, TEST))


def test_a_remedy_never_makes_attention_coarser() -> None:
    model = hostile()
    limits = config(accuracy_budget=1e-9, max_trials=2, attention="float32")
    result = tune(model, limits, DATA, fidelity(model), remedies=("attention",), progress=False)
    assert [step.what for step in result.report.steps] == ["as configured", "1 sites in FP32"]


def test_cores_in_bfloat16_can_end_in_float32() -> None:
    model = hostile()
    limits = config(accuracy_budget=1e-9, attention="bfloat16", max_trials=60)
    result = tune(model, limits, DATA, fidelity(model), remedies=(), progress=False)
    assert [site.name for site in result.report.fp32 if site.kind == "attention_bfloat16"]


@pytest.mark.slow
def test_an_impossible_budget_ends_with_the_best_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = hostile()
    metric = fidelity(model)
    first = metric(quantize(model, Int8Config(approach="static"), DATA, progress=False))
    result = tune(model, config(accuracy_budget=1e-9), DATA, metric, progress=False)
    assert not result.report.met and result.report.stopped == "exhausted"
    assert result.report.value > first
    assert metric(result.model) == pytest.approx(result.report.value)
    assert "NOT kept" in caplog.text


def test_the_number_of_trials_is_a_limit() -> None:
    model = hostile()
    metric = fidelity(model)
    result = tune(model, config(accuracy_budget=1e-9, max_trials=3), DATA, metric, progress=False)
    assert result.report.stopped == "max_trials" and len(result.report.steps) == 3
    assert metric.calls == 4  # FP32, and each trial  # type: ignore[attr-defined]


def test_the_time_is_a_limit_and_leaves_a_usable_model() -> None:
    model = hostile()
    result = tune(model, config(accuracy_budget=1e-9, timeout=0.0), DATA, fidelity(model), progress=False)
    assert result.report.stopped == "timeout" and len(result.report.steps) == 1
    assert torch.isfinite(zoo.logits(result.model, TEST)).all()


@pytest.mark.slow
def test_a_trial_that_overruns_is_stopped_and_does_not_count(tmp_path: Path) -> None:
    model, log = hostile(), tmp_path / "trials.json"
    inner, started = fidelity(model), []

    def endless(other: nn.Module) -> float:
        started.append(other)
        if len(started) == 3:  # FP32, as configured, and then one that the limit must end
            while True:
                inner(other)
        return inner(other)

    start = time.monotonic()
    result = tune(model, config(accuracy_budget=1e-9, timeout=6.0), DATA, endless, log=log, progress=False)
    assert time.monotonic() - start >= 6.0
    assert result.report.stopped == "timeout" and [step.what for step in result.report.steps] == ["as configured"]
    assert len(json.loads(log.read_text())["trials"]) == 1
    assert result.report.value == pytest.approx(fidelity(model)(result.model))
    assert not any(m._forward_pre_hooks for other in (result.model, model, *started) for m in other.modules())


def test_a_metric_that_swallows_the_stop_does_not_count() -> None:
    model = zoo.make("bert")
    with pytest.raises(OutOfTime), stopping(model, 0.0), contextlib.suppress(Exception):
        zoo.logits(model, TEST)
    assert not model._forward_pre_hooks


class Interrupted(Exception):
    pass


@pytest.mark.slow
def test_resumes_from_the_last_trial_with_the_same_result(tmp_path: Path) -> None:
    model = hostile()
    whole = tune(model, config(), DATA, fidelity(model), progress=False)
    inner, log = fidelity(model), tmp_path / "trials.json"

    def interrupted(other: nn.Module) -> float:
        if inner.calls == 4:  # type: ignore[attr-defined]
            raise Interrupted
        return inner(other)

    with pytest.raises(Interrupted):
        tune(model, config(), DATA, interrupted, log=log, progress=False)
    assert len(json.loads(log.read_text())["trials"]) == 3
    metric = fidelity(model)
    resumed = tune(model, config(), DATA, metric, log=log, progress=False)
    assert metric.calls == len(whole.report.steps) - 3  # type: ignore[attr-defined]
    assert [step.what for step in resumed.report.steps] == [step.what for step in whole.report.steps]
    assert torch.equal(zoo.logits(resumed.model, TEST), zoo.logits(whole.model, TEST))
    metric = fidelity(model)
    again = tune(model, config(), DATA, metric, log=log, progress=False)
    assert metric.calls == 0 and torch.equal(zoo.logits(again.model, TEST), zoo.logits(whole.model, TEST))  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == [log]


def test_the_log_of_another_model_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "trials.json"
    tune(hostile(), config(accuracy_budget=0.9), DATA, fidelity(hostile()), log=log, progress=False)
    other = zoo.make("bert", seed=3)
    metric = fidelity(other)
    tune(other, config(accuracy_budget=0.9), DATA, metric, log=log, progress=False)
    assert metric.calls == 2 and "another model" in caplog.text  # type: ignore[attr-defined]
    log.write_text("[]")
    with pytest.raises(ConfigError, match="no log of trials"):
        tune(other, config(), DATA, metric, log=log, progress=False)


def test_survives_saving(tmp_path: Path) -> None:
    model = hostile()
    result = tune(model, config(), DATA, fidelity(model), remedies=(), progress=False)
    OptimizedModel.save_pretrained(result.model, tmp_path / "int8")
    loaded = OptimizedModel.from_pretrained(tmp_path / "int8")
    assert torch.equal(zoo.logits(loaded, TEST), zoo.logits(result.model, TEST))
    assert loaded.config.quantization_config.to_dict()["tuning"]["fp32"][0]["name"] == result.report.fp32[0].name


def test_dynamic_models_tune_too() -> None:
    model = hostile()
    result = tune(
        model, config(approach="dynamic", accuracy_budget=0.03), DATA, fidelity(model), remedies=(), progress=False
    )
    assert result.report.met and OUTPUT in [site.name for site in result.report.fp32]


def test_misuse_is_refused() -> None:
    model = zoo.make("bert")
    with pytest.raises(ConfigError, match="accuracy_budget is None"):
        tune(model, Int8Config(), DATA, fidelity(model))
    with pytest.raises(ConfigError, match="unknown remedy 'prayer'"):
        tune(model, config(), DATA, fidelity(model), remedies=("prayer",))
    with pytest.raises(ConfigError, match="needs a metric"):
        quantize(model, config(), DATA)


def test_less_is_better() -> None:
    model = hostile()
    fidelity_of = fidelity(model)

    def error(other: nn.Module) -> float:
        return 2.0 - fidelity_of(other)

    result = tune(model, config(), DATA, error, greater_is_better=False, remedies=(), progress=False)
    assert result.report.met and result.report.baseline == 1.0 <= result.report.value


@pytest.mark.slow
def test_residuals_in_float32_are_tried_where_convolutions_have_some() -> None:
    model, x = nn.Sequential(Body()).eval(), torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    expected = model(x).detach()

    @torch.no_grad()
    def metric(other: nn.Module) -> float:
        return 1.0 - relative_error(other(x), expected)

    limits = config(accuracy_budget=1e-9, max_trials=2, fuse=True)
    before, after = tune(model, limits, [x], metric, remedies=("residuals",), progress=False).report.steps
    assert after.what == "residuals=float32" and after.loss < before.loss
    without = hostile()
    report = tune(without, limits, DATA, fidelity(without), remedies=("residuals",), progress=False).report
    assert "residuals=float32" not in {step.what for step in report.steps}
