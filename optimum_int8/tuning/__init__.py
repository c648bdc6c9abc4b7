"""Accuracy as a contract: which site costs accuracy, and the search for a model that keeps a budget. Decisions: docs/decisions/tuning.md."""

from .report import Fallback, TuningReport
from .search import REMEDIES, TuneResult, tune
from .sensitivity import Sensitivity, measure_sensitivity
from .trials import Trial

__all__ = [
    "REMEDIES",
    "Fallback",
    "Sensitivity",
    "Trial",
    "TuneResult",
    "TuningReport",
    "measure_sensitivity",
    "tune",
]
