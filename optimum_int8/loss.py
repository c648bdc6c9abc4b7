"""How much of a metric a model lost, in one definition for reports and budgets."""

from __future__ import annotations

import math


def relative_loss(fp32: float, int8: float, greater_is_better: bool = True) -> float | None:
    """The share of the FP32 value that INT8 lost; negative when it gained; None when that share has no meaning."""
    difference = fp32 - int8 if greater_is_better else int8 - fp32
    if difference == 0:
        return 0.0
    share = difference / abs(fp32) if fp32 else math.inf
    return share if math.isfinite(share) else None
