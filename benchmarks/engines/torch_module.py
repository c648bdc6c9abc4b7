"""What the engines that are PyTorch modules share."""

from __future__ import annotations

from typing import Any

import torch

from ..models import Call, Inputs, Job, Loaded


def loaded_module(model: torch.nn.Module, job: Job) -> Loaded:
    """A module that is called as Transformers' models are."""
    torch.set_num_threads(job.threads)

    def bind(inputs: Inputs) -> Call:
        @torch.inference_mode()
        def call() -> Any:
            return model(**inputs)

        return call

    return Loaded(bind, lambda result: result.last_hidden_state.float())
