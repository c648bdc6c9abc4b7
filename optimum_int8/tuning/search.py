"""`tune`: the search for an INT8 model that keeps an accuracy budget, cheapest remedies first."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from ..config import ATTENTIONS, Int8Config
from ..errors import ConfigError
from ..loss import relative_loss
from ..nn import copy_of
from ..prepare import Prepared
from ..quantization import convert, prepare_copy
from ..sites import KINDS
from .fallbacks import explain, without
from .limit import OutOfTime, stopping
from .report import TuningReport
from .sensitivity import Sensitivity, measure_sensitivity
from .trials import Trial, TrialLog, fingerprint

logger = logging.getLogger(__name__)

REMEDIES: dict[str, tuple[dict[str, Any], ...]] = {
    "observer": ({"observer": "percentile"}, {"observer": "mse"}),
    "bias_correction": ({"bias_correction": True},),
    "weight_range": ({"weight_range": "search"},),
    "smooth_quant": ({"smooth_quant": "search"},),
    "residuals": ({"residuals": "float32"},),
    "attention": ({"attention": "bfloat16"}, {"attention": "float32"}),
}
"""Settings that are tried before sites are left in FP32, the cheapest first: all but residuals and attention cost no speed. What helps stays."""

SENSITIVITY_SHARE = 0.3
"""Largest share of the time left that ranking the sites may take."""

RETURNS = 8
"""Sites that are tried in INT8 again, one by one, once the budget is met."""


@dataclass(frozen=True)
class TuneResult:
    """The best model, and how it was found."""

    model: nn.Module
    report: TuningReport
    sensitivity: list[Sensitivity]


class _Stop(Exception):
    """The search is over; its argument is the reason."""


def tune(
    model: nn.Module,
    config: Int8Config,
    calibration_data: Iterable[Any],
    metric_function: Callable[[nn.Module], float],
    *,
    greater_is_better: bool = True,
    remedies: Sequence[str] = tuple(REMEDIES),
    log: str | Path | None = None,
    progress: bool = True,
) -> TuneResult:
    """Find an INT8 version of `model` whose metric loses at most `config.accuracy_budget`, relative to `model`.

    First the model as configured; then the `remedies`, each kept when it helps; then sites are left in FP32, from the
    one that costs most accuracy on, as few as meet the budget (doubling, then bisecting); then single ones return to INT8.
    Ends with the best model found, whether or not the budget is met.

    Args:
        model: float; it is left as it was.
        config: where to start; `accuracy_budget`, `max_trials` and `timeout` (seconds) are its limits. A trial that is not
            done in time is stopped and does not count; the first one is always done, so that there is a model.
        calibration_data: batches; also a dynamic model needs some, to rank its sites.
        metric_function: model to metric, called with the float model once and with each INT8 model.
        greater_is_better: False for a perplexity.
        remedies: names in `REMEDIES`.
        log: JSON file of trials. An interrupted search resumes from it: what it holds is not measured again.
        progress: show bars.

    Raises:
        ConfigError: no budget, an unknown remedy, or a `log` that is something else.
        CalibrationError, QuantizationError: as `quantize` raises them.
    """
    if config.accuracy_budget is None:
        raise ConfigError("config.accuracy_budget is None; expected the largest relative loss, such as 0.01")
    unknown = [name for name in remedies if name not in REMEDIES]
    if unknown:
        raise ConfigError(f"unknown remedy {unknown[0]!r}; known ones are {', '.join(REMEDIES)}")
    data = list(calibration_data)
    search = _Search(model, config, data, metric_function, greater_is_better, log, progress)
    try:
        search.run(remedies)
        stopped = "met" if search.kept(search.best) else "exhausted"
    except _Stop as stop:
        stopped = "met" if search.kept(search.best) else str(stop)
    finally:
        search.bar.close()
    return search.finish(stopped)


class _Search:
    """The state of one search: what was tried, and the best of it."""

    def __init__(
        self,
        model: nn.Module,
        config: Int8Config,
        data: list[Any],
        metric: Callable[[nn.Module], float],
        greater_is_better: bool,
        log: str | Path | None,
        progress: bool,
    ) -> None:
        self.model = model
        self.config = config
        self.data = data
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.progress = progress
        self.start = time.monotonic()
        self.log = TrialLog.open(log, fingerprint(model, config, data))
        self.steps: list[Trial] = []
        self.best: Trial | None = None
        self.rows: list[Sensitivity] = []
        self._prepared: tuple[Int8Config, Prepared] | None = None
        self._made: tuple[Trial, nn.Module] | None = None
        self.bar = tqdm(total=config.max_trials, desc="tuning", unit="trial", disable=None if progress else True)
        if self.log.baseline is None:
            self.log.baseline = float(metric(model))
            self.log.write()
        self.baseline = self.log.baseline

    def run(self, remedies: Sequence[str]) -> None:
        """All the steps; ends early by `_Stop`."""
        self.try_config("as configured", self.config)
        for name in remedies:
            for change in REMEDIES[name]:
                config = replace(Int8Config.from_dict(self._best().config), **change)
                if self.kept(self.best):
                    return
                if self._applies(name, change):
                    self.try_config(", ".join(f"{k}={v}" for k, v in change.items()), config)
        if not self.kept(self.best):
            self._fall_back()

    def _applies(self, name: str, change: dict[str, Any]) -> bool:
        best = self._best().config
        if name == "attention":
            return ATTENTIONS.index(change[name]) > ATTENTIONS.index(best[name])
        if name == "residuals" and not any(isinstance(m, (nn.Conv1d, nn.Conv2d)) for m in self.model.modules()):
            return False
        fresh = any(best[key] != value for key, value in change.items())
        return fresh and (self.config.approach != "dynamic" or name not in ("observer", "bias_correction", "residuals"))

    def _fall_back(self) -> None:
        """Leave the worst sites in FP32: 1, 2, 4 ... until the budget is met, then bisect, then let single ones return."""
        base = Int8Config.from_dict(self._best().config)
        sites = self.rank(base)
        low = 0
        high = None
        count = 1
        while high is None or high - low > 1:
            if self.kept(self.try_config(f"{count} sites in FP32", without(base, sites[:count]))):
                high = count
            elif count == len(sites):
                return
            else:
                low = count
            count = min(2 * count, len(sites)) if high is None else (low + high) // 2
        kept = sites[:high]
        for site in sorted(kept, key=lambda row: -row.macs)[:RETURNS]:
            fewer = [row for row in kept if row is not site]
            if site.macs and self.kept(self.try_config(f"{site.name} back in INT8", without(base, fewer))):
                kept = fewer

    def rank(self, config: Int8Config) -> list[Sensitivity]:
        """Sites from the worst on; the last linears and tables stay, since a model without any INT8 is none."""
        prepared = self.prepared(config)
        if self.log.sensitivity is not None:
            self.rows = [Sensitivity(**row) for row in self.log.sensitivity]
        else:
            now = time.monotonic()
            deadline = now + SENSITIVITY_SHARE * max(self.deadline() - now, 0.0)
            self.rows = measure_sensitivity(
                prepared, self.data, distributions=True, deadline=deadline, progress=self.progress
            )
            self.log.sensitivity = [row.to_dict() for row in self.rows]
            self.log.write()
        last = [row for row in self.rows if KINDS[row.kind].takes_place][-1]
        return [row for row in self.rows if row is not last]

    def try_config(self, what: str, config: Int8Config) -> Trial:
        """Make and measure a model, unless the log knows it. Raises `_Stop` when a limit is reached, but for the first."""
        if self.steps and len(self.steps) >= self.config.max_trials:
            raise _Stop("max_trials")
        trial = self.log.find(config)
        model = None
        if trial is None:
            before = time.monotonic()
            deadline = self.deadline() if self.steps else float("inf")
            if before > deadline:
                raise _Stop("timeout")
            try:
                model = self.make(config, deadline)
                with stopping(model, deadline):
                    value = float(self.metric(model))
            except OutOfTime as late:
                raise _Stop("timeout") from late
            loss = relative_loss(self.baseline, value, self.greater_is_better)
            trial = Trial(what, config.to_dict(), value, loss, time.monotonic() - before)
            self.log.trials.append(trial)
            self.log.write()
        self.steps.append(trial)
        if self.best is None or self.cost(trial) < self.cost(self.best):
            self.best = trial
            self._made = None if model is None else (trial, model)
        self.bar.update()
        self.bar.set_postfix_str(f"{what}: loss {trial.loss_or_inf:.2%}, best {self._best().loss_or_inf:.2%}")
        return trial

    def kept(self, trial: Trial | None) -> bool:
        """Whether a trial meets the budget."""
        assert self.config.accuracy_budget is not None
        return trial is not None and trial.loss_or_inf <= self.config.accuracy_budget

    def cost(self, trial: Trial) -> tuple[bool, float, float]:
        """What the best trial has least of: over budget, multiply-adds in FP32 (once it is met), loss."""
        macs = {row.name: row.macs for row in self.rows}
        left = [*trial.config["exclude"], *trial.config["exclude_attention"]]
        return not self.kept(trial), sum(macs.get(n, 0) for n in left) if self.kept(trial) else 0.0, trial.loss_or_inf

    def deadline(self) -> float:
        """In `time.monotonic()`."""
        return self.start + (float("inf") if self.config.timeout is None else self.config.timeout)

    def prepared(self, config: Int8Config, deadline: float = float("inf")) -> Prepared:
        """The calibrated float model for a configuration; what is left in FP32 does not change it, so it is reused."""
        own = replace(
            config, exclude=self.config.exclude, exclude_attention=self.config.exclude_attention, accuracy_budget=None
        )
        if self._prepared is None or self._prepared[0] != own:
            self._prepared = None  # not two float copies at once
            target = copy_of(self.model)
            with stopping(target, deadline):
                self._prepared = own, prepare_copy(target, own, self.data, inplace=True, progress=self.progress)
        return self._prepared[1]

    def make(self, config: Int8Config, deadline: float = float("inf")) -> nn.Module:
        """The INT8 model of a configuration. Raises `OutOfTime`."""
        prepared = self.prepared(config, deadline)
        sites = copy.deepcopy(prepared.sites)
        for name in set(config.exclude) - set(self.config.exclude):
            sites.demote(name, "accuracy budget")
        for name in set(config.exclude_attention) - set(self.config.exclude_attention):
            sites.demote(name, "accuracy budget")
        return convert(replace(prepared, model=copy.deepcopy(prepared.model), config=config, sites=sites))

    def finish(self, stopped: str) -> TuneResult:
        """The best model, made again if it is not at hand, with the report in its metadata."""
        best = self._best()
        config = Int8Config.from_dict(best.config)
        model = self._made[1] if self._made is not None else self.make(config)
        report = TuningReport(
            budget=self.config.accuracy_budget or 0.0,
            met=self.kept(best),
            stopped=stopped,
            baseline=self.baseline,
            value=best.value,
            loss=best.loss,
            seconds=time.monotonic() - self.start,
            steps=list(self.steps),
            **explain(self.config, config, self.prepared, self.data, self.rows),
        )
        (logger.info if report.met else logger.warning)(report.verdict())
        metadata = getattr(getattr(model, "config", None), "quantization_config", None)
        if isinstance(metadata, dict):
            metadata["fp32"].update({site.name: site.reason for site in report.fp32})
            metadata["tuning"] = report.to_dict()
        return TuneResult(model, report, self.rows)

    def _best(self) -> Trial:
        assert self.best is not None
        return self.best
