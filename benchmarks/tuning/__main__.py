"""Measure tuning: real models within 1 %, outliers with and without SmoothQuant, and the time limit. Stores one JSON file.

`python -m benchmarks.tuning --shared SHARED --gpt2 FOLDER [NAME ...]`; FOLDER is what `benchmarks.tuning.gpt2` trained.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.results import FOLDER, _rounded, describe
from benchmarks.tuning.subjects import CALIBRATION, CHANNELS, FACTOR, Subject, subjects
from optimum_int8 import Int8Config, quantize, tune
from optimum_int8.loss import relative_loss
from optimum_int8.tune import REMEDIES

RESULT = FOLDER / "tuning" / "tuning.json"
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


def main() -> None:
    """Measure the subjects named, and keep what the file has of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="subjects (default: all)")
    parser.add_argument("--shared", type=Path, required=True, help="folder with models/ and data/")
    parser.add_argument("--gpt2", type=Path, required=True, help="the GPT-2 that gpt2.py trained")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds per subject")
    parser.add_argument("--max-trials", type=int, default=50)
    args = parser.parse_args()
    known = subjects(args.shared, args.gpt2)
    result = json.loads(args.output.read_text()) if args.output.exists() else {"subjects": {}}
    settings = {"budget": BUDGET, "factor": FACTOR, "channels": CHANNELS, "calibration": CALIBRATION}
    for name in args.names or [*known, TIME_LIMIT]:
        start = time.perf_counter()
        machine = describe(torch.get_num_threads())
        if name == TIME_LIMIT:
            found = measure_time_limit(known["sst2-both"]())
        else:
            found = measure(known[name](), args.timeout, args.max_trials)
        found |= {"wall_seconds": time.perf_counter() - start, "machine": machine}
        result = {"settings": settings, "subjects": {**result["subjects"], name: found}}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(_rounded(result), indent=1) + "\n", encoding="utf-8")
        print(
            name, json.dumps(_rounded({k: v for k, v in found.items() if k not in ("tuning", "machine")})), flush=True
        )


if __name__ == "__main__":
    main()
