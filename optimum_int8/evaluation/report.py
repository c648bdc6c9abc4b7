"""`EvaluationReport`: FP32 versus INT8, as a JSON object and as a table."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..loss import relative_loss
from .latency import PairedLatency, Quartiles, advice, speedup_text
from .size import MEGABYTE

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Measurement:
    """One model: the metric's value, the checkpoint in megabytes (10^6 bytes), the median latency in milliseconds."""

    value: float
    size_mb: float
    latency_ms: float


@dataclass(frozen=True)
class Spread:
    """How far the times of an evaluation scatter.

    Args:
        fp32_ms, int8_ms: quartiles of the latencies, over examples of all lengths.
        speedup: quartiles of the rounds' ratios, see `PairedLatency.ratio_quartiles`.
        load: the machine's load average when timing began; None where it is not known.
    """

    fp32_ms: Quartiles
    int8_ms: Quartiles
    speedup: Quartiles
    load: float | None = None

    @classmethod
    def of(cls, times: PairedLatency) -> Spread:
        """That of times by the names `"fp32"` and `"int8"`."""
        ratio = times.ratio_quartiles("fp32", "int8")
        return cls(times.quartiles("fp32"), times.quartiles("int8"), ratio, times.load)

    def to_dict(self) -> dict[str, Any]:
        """The spread as JSON types."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spread:
        """The inverse of `to_dict`."""
        fp32_ms, int8_ms, speedup = (Quartiles(*values[name]) for name in ("fp32_ms", "int8_ms", "speedup"))
        return cls(fp32_ms, int8_ms, speedup, values["load"])


@dataclass(frozen=True)
class EvaluationReport:
    """What quantization cost and what it gave.

    Args:
        metric: name of the metric.
        fp32, int8: the two models, measured in one run.
        relative_loss: `(fp32 - int8) / |fp32|` for a metric where more is better, the opposite sign where less is;
            negative when INT8 is better; None when the FP32 value is 0 and the INT8 one is not.
        machine: `describe_machine()`.
        spread: how far the latencies scatter; None where that is not known.

    Example:
        >>> report = EvaluationReport("accuracy", Measurement(0.8, 400, 50), Measurement(0.8, 100, 10), 0.0, {})
        >>> report.compression_ratio, report.speedup
        (4.0, 5.0)
    """

    metric: str
    fp32: Measurement
    int8: Measurement
    relative_loss: float | None
    machine: dict[str, Any]
    spread: Spread | None = None

    @classmethod
    def build(
        cls,
        metric: str,
        values: dict[str, float],
        sizes: dict[str, int],
        latencies: dict[str, float] | PairedLatency,
        machine: dict[str, Any],
        *,
        greater_is_better: bool = True,
    ) -> EvaluationReport:
        """Make a report from dictionaries with the keys `"fp32"` and `"int8"`: values, bytes, milliseconds (or their `PairedLatency`)."""
        spread = None
        if isinstance(latencies, PairedLatency):
            spread = Spread.of(latencies)
            latencies = latencies.medians()
        fp32, int8 = (Measurement(values[k], sizes[k] / MEGABYTE, latencies[k]) for k in ("fp32", "int8"))
        return cls(metric, fp32, int8, relative_loss(fp32.value, int8.value, greater_is_better), machine, spread)

    @property
    def compression_ratio(self) -> float:
        """How many times smaller the INT8 checkpoint is."""
        return self.fp32.size_mb / self.int8.size_mb

    @property
    def speedup(self) -> float | None:
        """How many times faster the INT8 model is: the ratio of the median latencies. None where `spread` says that it was not measurable."""
        steady = self.spread is None or self.spread.speedup.is_steady
        return self.fp32.latency_ms / self.int8.latency_ms if steady else None

    @property
    def speedup_text(self) -> str:
        """`speedup` in words, or that it was not measurable."""
        ratio = self.fp32.latency_ms / self.int8.latency_ms
        return speedup_text(ratio, self.spread.speedup if self.spread else None)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        found = {
            "metric": self.metric,
            "fp32": dataclasses.asdict(self.fp32),
            "int8": dataclasses.asdict(self.int8),
            "relative_loss": self.relative_loss,
            "compression_ratio": self.compression_ratio,
            "speedup": self.speedup,
            "machine": dict(self.machine),
        }
        return found if self.spread is None else {**found, "spread": self.spread.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvaluationReport:
        """The inverse of `to_dict`; the two ratios are computed again.

        Raises:
            DataError: a key is missing or of a wrong type.
        """
        try:
            fp32, int8 = (Measurement(**values[name]) for name in ("fp32", "int8"))
            spread = Spread.from_dict(values["spread"]) if values.get("spread") else None
            return cls(values["metric"], fp32, int8, values["relative_loss"], dict(values["machine"]), spread)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"not an evaluation report: {error!r}; expected what EvaluationReport.to_dict() gives"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write the report as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> EvaluationReport:
        """Read what `save` wrote. Raises `DataError` when it is missing or is no report."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read the report {str(path)!r}: {error}") from error
        return cls.from_dict(values)

    def table(self) -> Table:
        """The report as a `rich` table; `rich.print(report.table())` shows it."""
        from rich.table import Table

        machine = self.machine
        threads = f"{machine['threads']} threads" if "threads" in machine else None
        notes = [note for note in (machine.get("cpu"), machine.get("isa_used"), threads) if note]
        if self.spread is not None and self.spread.load is not None:
            notes.append(f"load average {self.spread.load:.1f} before timing")
        if self.spread is not None and self.speedup is None:
            notes.append(f"\n{advice(self.spread.load, machine.get('cores'))}")
        table = Table(title="FP32 versus INT8", caption=", ".join(notes).replace(", \n", "\n"))
        for heading in ("", "FP32", "INT8", "change"):
            table.add_column(heading, justify="left" if not heading else "right")
        table.add_row(self.metric, f"{self.fp32.value:.4f}", f"{self.int8.value:.4f}", _change(self.relative_loss))
        sizes = [f"{side.size_mb:.2f} MB" for side in (self.fp32, self.int8)]
        table.add_row("checkpoint", *sizes, f"{self.compression_ratio:.2f}x smaller")
        table.add_row("latency", *(f"{m.latency_ms:.2f} ms" for m in (self.fp32, self.int8)), self.speedup_text)
        if self.spread is not None:
            spread = self.spread
            ends = [f"{low:.2f} to {high:.2f}" for low, high in (spread.fp32_ms, spread.int8_ms, spread.speedup)]
            table.add_row("quartiles", f"{ends[0]} ms", f"{ends[1]} ms", f"{ends[2]}")
        return table


def _change(loss: float | None) -> str:
    if loss is None:
        return "undefined (FP32 is 0)"
    if loss == 0:
        return "equal"
    return f"{abs(loss):.2%} {'worse' if loss > 0 else 'better'}"
