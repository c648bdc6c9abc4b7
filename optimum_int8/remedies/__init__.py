"""Remedies for lost accuracy: each a function that takes a float model and calibration data. Decisions: docs/decisions/calibration.md."""

from .bias import mean_errors
from .flow import Edge, find_edges
from .rows import Inputs, collect_inputs, evaluating
from .smooth import SmoothReport, smooth_quant
from .weight_range import search_weight_scale

__all__ = [
    "Edge",
    "Inputs",
    "SmoothReport",
    "collect_inputs",
    "evaluating",
    "find_edges",
    "mean_errors",
    "search_weight_scale",
    "smooth_quant",
]
