"""What tuning found: whether the budget is kept, each site that is not INT8, why, and what it cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from ..calibration import run_batch
from .counterparts import Compute, Counterparts
from .sensitivity import Sensitivity
from .trials import Trial

REPEATS = 5


@dataclass(frozen=True)
class Fallback:
    """A site that the budget left in FP32, or a core that it set to bfloat16.

    Attributes:
        name, kind: as in `Sites`.
        reason: why, in words.
        error: of the model's outputs, when this site alone is quantized; relative.
        macs: share of the model's multiply-adds.
        size_mb: how many 10^6 bytes more than in INT8.
        milliseconds: how much longer than in INT8, per call on a calibration batch; negative when INT8 is slower.
    """

    name: str
    kind: str
    reason: str
    error: float
    macs: float
    size_mb: float
    milliseconds: float


@dataclass(frozen=True)
class TuningReport:
    """The end of a search.

    Attributes:
        budget: largest relative loss that was allowed.
        met: whether the model keeps it.
        stopped: why the search ended: `"met"`, `"max_trials"`, `"timeout"`, or `"exhausted"`: nothing was left to try.
        baseline, value: the metric of FP32 and of the model.
        loss: relative; None when FP32 is 0.
        trials: how many models were measured, and in `steps` what each was and gave.
        seconds: the whole search; of a resumed one, since it was resumed.
        fp32: the sites left in FP32.
        bfloat16: the attention cores in bfloat16.
    """

    budget: float
    met: bool
    stopped: str
    baseline: float
    value: float
    loss: float | None
    seconds: float
    steps: list[Trial] = field(default_factory=list)
    fp32: list[Fallback] = field(default_factory=list)
    bfloat16: list[Fallback] = field(default_factory=list)

    @property
    def fp32_macs(self) -> float:
        """Share of the multiply-adds that the budget left in FP32."""
        return sum(site.macs for site in self.fp32)

    def verdict(self) -> str:
        """One plain sentence."""
        loss = "an undefined loss" if self.loss is None else f"a relative loss of {self.loss:.2%}"
        kept = "is kept" if self.met else f"is NOT kept ({self.stopped})"
        return f"The budget of {self.budget:.2%} {kept}: {loss} after {len(self.steps)} trials."

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types; of each trial the step and what it gave."""
        steps = [{k: v for k, v in asdict(step).items() if k != "config"} for step in self.steps]
        own = {k: v for k, v in asdict(self).items() if k != "steps"}
        return {**own, "fp32_macs": self.fp32_macs, "steps": steps}


def costs(
    counterparts: Counterparts, batch: Any, sites: Sequence[str], rows: Mapping[str, Sensitivity]
) -> list[Fallback]:
    """What it costs that `sites` are not INT8, timed on one batch alternating with their INT8 counterparts."""
    wanted = set(sites)
    if not wanted:
        return []
    times: dict[str, float] = {}

    def measure(name: str, inputs: tuple[Any, ...], output: Tensor, int8: Compute, exact: Compute) -> None:
        if name in wanted and name not in times:
            times[name] = statistics.median(_seconds(exact) - _seconds(int8) for _ in range(REPEATS)) * 1e3

    with counterparts.visited(measure):
        run_batch(counterparts.model, batch)
    found = []
    for name in sites:
        row = rows[name]
        size = counterparts.kinds[name].saved_bytes(counterparts.model.get_submodule(name), counterparts.int8[name])
        changed = "its own output" if row.model_error is None else "the outputs"
        reason = f"accuracy budget: alone in INT8 it changes {changed} by {row.error:.2%}"
        found.append(Fallback(name, row.kind, reason, row.error, row.macs, size / 1e6, times.get(name, 0.0)))
    return found


def _seconds(call: Compute) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
