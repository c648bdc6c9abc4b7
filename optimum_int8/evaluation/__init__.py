"""Measure a model: metric, checkpoint size, latency, and the machine they were measured on."""

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
