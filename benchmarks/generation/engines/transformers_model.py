"""What the engines that run Transformers' own `generate()` share."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from ..models import Generated, make_inputs
from ..rows import Row


class Stopwatch(StoppingCriteria):
    """Never stops; notes the time after every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:  # noqa: D102
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


class TransformersModel:
    """A model whose `generate()` is called as users call it."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @torch.no_grad()
    def run(self, row: Row) -> Generated:
        """One call."""
        inputs = make_inputs(self.model.config, row.batch, row.context)
        options = {"max_new_tokens": row.new, "min_new_tokens": row.new, "do_sample": False, "num_beams": row.beams}
        watch = Stopwatch()
        start = time.perf_counter()
        found = self.model.generate(**inputs, **options, stopping_criteria=StoppingCriteriaList([watch]))
        total = time.perf_counter() - start
        return Generated(found[:, -row.new :].tolist(), total * 1e3, (watch.times[0] - start) * 1e3)
