"""Bias correction: the mean error that quantization makes on the calibration data, taken out of the biases.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2 (empirical).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..calibration import counted_rows
from ..sites.rows import channels_last
from .rows import Hook, run_watched


def mean_errors(
    model: nn.Module, counterparts: Mapping[str, nn.Module], data: Iterable[Any], *, progress: bool = True
) -> dict[str, Tensor]:
    """Mean over the tokens of `float output - INT8 output`, per output channel: what a bias lacks.

    Each counterpart gets the input of its float module in the float model, so errors do not add up over layers. The model is
    left as it was.

    Args:
        model: the float model.
        counterparts: module name to the INT8 module built from it.
        data: batches, as `quantize` takes them; padding does not count.

    Returns:
        Module name to float32 `[out]`. Modules that no batch reached are absent.

    Raises:
        CalibrationError: there is no batch.
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(counterparts, 0)

    def hook(name: str) -> Hook:
        def add(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            error = output.float() - counterparts[name](inputs[0]).float()
            difference = counted_rows(channels_last(module, error))
            sums[name] = sums.get(name, 0) + difference.sum(0, dtype=torch.float64)
            counts[name] += len(difference)

        return add

    run_watched(model, {name: hook(name) for name in counterparts}, data, "correcting biases", progress)
    return {name: (total / counts[name]).float() for name, total in sums.items() if counts[name]}
