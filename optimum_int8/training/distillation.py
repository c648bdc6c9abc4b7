"""Distillation: the distance between the logits of the model in training and those of the FP32 model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import QuantizationError

_LOGITS = ("logits", "start_logits", "end_logits")
IGNORED = -100
"""The label of positions that do not count."""


def distillation_loss(
    student: Mapping[str, Any], teacher: Mapping[str, Any], temperature: float, labels: Tensor | None = None
) -> Tensor:
    """Mean over what counts of `T**2 * KL(teacher / T || student / T)`, or of the squared difference for a model with one output.

    Source: Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531; T**2 keeps the size of the gradient.

    Args:
        student, teacher: outputs with `logits` `[batch, classes]` or `[batch, length, classes]`, or with `start_logits` and
            `end_logits` `[batch, length]`.
        labels: of shape `[batch, length]`, positions of -100 do not count.

    Raises:
        QuantizationError: the outputs hold no logits.
    """
    names = [name for name in _LOGITS if student.get(name) is not None]
    if not names:
        raise QuantizationError(
            f"the model's outputs have no logits to distil ({', '.join(student)}); set distillation_weight=0"
        )
    return torch.stack([_distance(student[n].float(), teacher[n].float(), temperature, labels) for n in names]).mean()


def _distance(student: Tensor, teacher: Tensor, temperature: float, labels: Tensor | None) -> Tensor:
    if student.shape[-1] == 1:
        distance = functional.mse_loss(student, teacher, reduction="none").sum(-1)
    else:
        distance = temperature**2 * functional.kl_div(
            functional.log_softmax(student / temperature, -1),
            functional.log_softmax(teacher / temperature, -1),
            reduction="none",
            log_target=True,
        ).sum(-1)
    if labels is None or labels.shape != distance.shape:
        return distance.mean()
    counted = labels != IGNORED
    return (distance * counted).sum() / counted.sum().clamp(min=1)
