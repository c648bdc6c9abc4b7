"""`RangeSchedule`: moves the ranges between the steps of a training, and freezes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..nn.fake import FakeQuantize
from .settings import QatSettings


class RangeSchedule(TrainerCallback):
    """Between two steps all ranges of a model move at once, by what every process saw; from the freezing step on they stay.

    Which step that is follows from the trainer's own state, so that a resumed training continues as it would have.
    """

    def __init__(self, settings: QatSettings) -> None:
        self.settings = settings

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start observing, unless the ranges are frozen by now."""
        self._observe(kwargs["model"], state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Without a gradient, an optimizer leaves a parameter alone."""
        if self.settings.learnable and self.is_frozen(state):
            for part in fake_quantizers(kwargs["model"]):
                assert part.log_gain is not None
                part.log_gain.grad = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the ranges by what was seen since the last step."""
        if not self.settings.learnable:
            move_ranges(fake_quantizers(kwargs["model"]), self.settings.averaging_constant)
            self._observe(kwargs["model"], state)

    def is_frozen(self, state: TrainerState) -> bool:
        """Whether the step to come leaves the ranges alone."""
        share = self.settings.freeze_ranges_at
        return share < 1.0 and state.global_step >= share * state.max_steps

    def _observe(self, model: nn.Module, state: TrainerState) -> None:
        for part in fake_quantizers(model):
            part.observing = not self.settings.learnable and not self.is_frozen(state)


def fake_quantizers(model: nn.Module) -> list[FakeQuantize]:
    """The activation fake quantizers of a model, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, FakeQuantize)]


def move_ranges(parts: list[FakeQuantize], averaging_constant: float) -> None:
    """Move each range towards the extremes it saw in any process. Those that saw nothing stay."""
    seen = [part.take_seen() for part in parts]
    if not parts:
        return
    lowest = _stack([None if s is None else s[0] for s in seen], parts, torch.inf)
    highest = _stack([None if s is None else s[1] for s in seen], parts, -torch.inf)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(lowest, torch.distributed.ReduceOp.MIN)
        torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
    for part, low, high in zip(parts, lowest, highest, strict=True):
        part.update(low, high, averaging_constant)


def _stack(values: list[Tensor | None], parts: list[FakeQuantize], absent: float) -> Tensor:
    """One value per part; `update` passes over what is not finite."""
    return torch.stack(
        [part.scale.new_tensor(absent) if v is None else v for v, part in zip(values, parts, strict=True)]
    )
