"""Real models within 1 %, outliers with and without SmoothQuant, and the time limit: what `python -m benchmarks tuning` measures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from optimum_int8 import Int8Config, quantize, tune
from optimum_int8.loss import relative_loss
from optimum_int8.tuning import REMEDIES

from ..commands import check_names
from ..results import describe, rounded
from .subjects import CALIBRATION, CHANNELS, FACTOR, Subject

BUDGET = 0.01
TIME_LIMIT = "sst2-both, stopped by time"
RUNS = 3.0
"""Its limit, in times of the metric in FP32: enough for the model as configured, so that a later trial is cut off."""


def measure(subject: Subject, timeout: float, max_trials: int) -> dict[str, Any]:
    """Plain static, SmoothQuant alone (hostile subjects), and tuning, without SmoothQuant for hostile subjects."""
    metric, batches = subject.metric, subject.batches
    baseline = metric(subject.model)
    found: dict[str, Any] = {"metric": subject.metric_name, "examples": subject.examples, "fp32": baseline}

    def loss_of(model: nn.Module) -> dict[str, float | None]:
        value = metric(model)
        return {"value": value, "loss": relative_loss(baseline, value, subject.greater_is_better)}

    if subject.hostile:
        for name, settings in (("static", {}), ("smooth_quant", {"smooth_quant": "search"})):
            model = quantize(subject.model, Int8Config(approach="static", **settings), batches, progress=False)
            found[name] = loss_of(model)
    remedies = tuple(name for name in REMEDIES if not (subject.hostile and name == "smooth_quant"))
    config = Int8Config(approach="static", accuracy_budget=BUDGET, timeout=timeout, max_trials=max_trials)
    seen = _remembering(metric, baseline, subject.model)
    result = tune(subject.model, config, batches, seen, greater_is_better=subject.greater_is_better, remedies=remedies)
    return {**found, "remedies": list(remedies), "tuning": result.report.to_dict()}


def measure_time_limit(subject: Subject) -> dict[str, Any]:
    """A budget that nothing can meet, stopped by its time limit: the model must be usable, and its metric is measured again."""
    metric, batches = subject.metric, subject.batches
    start = time.perf_counter()
    baseline = metric(subject.model)
    timeout = RUNS * (time.perf_counter() - start)
    config = Int8Config(approach="static", accuracy_budget=0.0, timeout=timeout, exclude=(), max_trials=1000)
    seen = _remembering(lambda model: metric(model) - 1.0, baseline, subject.model)
    start = time.perf_counter()
    result = tune(subject.model, config, batches, seen)
    seconds = time.perf_counter() - start
    return {
        "timeout": timeout,
        "seconds": seconds,
        "metric_again": metric(result.model),
        "tuning": result.report.to_dict(),
    }


def _remembering(
    metric: Callable[[nn.Module], float], baseline: float, fp32: nn.Module
) -> Callable[[nn.Module], float]:
    return lambda model: baseline if model is fp32 else metric(model)


def measure_all(
    names: Sequence[str], known: dict[str, Callable[[], Subject]], output: Path, timeout: float, max_trials: int
) -> None:
    """Measure the subjects named (all where there are none), and keep what the file has of the others.

    Args:
        known: name to maker, from `subjects`.
        timeout: seconds per subject.

    Raises:
        UsageError: a name that is not known.
    """
    check_names("subject", names, [*known, TIME_LIMIT])
    result = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {"subjects": {}}
    settings = {"budget": BUDGET, "factor": FACTOR, "channels": CHANNELS, "calibration": CALIBRATION}
    for name in names or [*known, TIME_LIMIT]:
        start = time.perf_counter()
        machine = describe(torch.get_num_threads())
        if name == TIME_LIMIT:
            found = measure_time_limit(known["sst2-both"]())
        else:
            found = measure(known[name](), timeout, max_trials)
        found |= {"wall_seconds": time.perf_counter() - start, "machine": machine}
        result = {"settings": settings, "subjects": {**result["subjects"], name: found}}
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(rounded(result), indent=1) + "\n", encoding="utf-8")
        shown = {key: value for key, value in found.items() if key not in ("tuning", "machine")}
        print(name, json.dumps(rounded(shown)), flush=True)
