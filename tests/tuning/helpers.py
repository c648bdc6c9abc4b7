"""A small model with one ruined site, and a metric that sees it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests import zoo
from tests.remedies import outliers

DATA = [zoo.inputs(zoo.make("bert"), 4, 12, seed) for seed in range(2)]
TEST = zoo.inputs(zoo.make("bert"), 6, 12, 9)
VALUE = "bert.encoder.layer.1.attention.self"
OUTPUT = "bert.encoder.layer.1.attention.output.dense"


def hostile() -> nn.Module:
    """A BERT whose last layer's values have outliers, undone in the output projection."""
    model = zoo.make("bert")
    layer = model.bert.encoder.layer[1]
    for _ in range(2):
        outliers.scale_values(layer.attention.self.value, layer.attention.output.dense)
    return model


def fidelity(model: nn.Module) -> Callable[[nn.Module], float]:
    """A metric: 1 less the relative error of the logits; 1 for the FP32 model itself. Counts its calls."""
    expected = zoo.logits(model, TEST)

    def metric(other: nn.Module) -> float:
        metric.calls += 1  # type: ignore[attr-defined]
        return 1.0 - relative_error(zoo.logits(other, TEST), expected)

    metric.calls = 0  # type: ignore[attr-defined]
    return metric


def relative_error(given: Tensor, expected: Tensor) -> float:
    """Root-mean-square, relative."""
    return float((given - expected).norm() / expected.norm())


torch.manual_seed(0)
