"""Measure a model: metric, checkpoint size, latency, and the machine they were measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_attributes

if TYPE_CHECKING:
    from .latency import PairedLatency, paired_latency
    from .machine import describe_machine
    from .metrics import METRICS, load_metric
    from .report import EvaluationReport, Measurement

__all__ = [
    "METRICS",
    "EvaluationReport",
    "Measurement",
    "PairedLatency",
    "describe_machine",
    "load_metric",
    "paired_latency",
]

_PLACES = {
    **dict.fromkeys(["METRICS", "load_metric"], "metrics"),
    **dict.fromkeys(["EvaluationReport", "Measurement"], "report"),
    **dict.fromkeys(["PairedLatency", "paired_latency"], "latency"),
    "describe_machine": "machine",
}
"""Imported at first use: metrics take the packages of the extra `evaluate` along."""

__getattr__ = lazy_attributes(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
