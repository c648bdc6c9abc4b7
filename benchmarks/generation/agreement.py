"""Whether an engine computes the model: its tokens against the logits of FP32, before anything is timed."""

from __future__ import annotations

from typing import Any

import torch

from .models import WHISPER_PROMPT, make_inputs
from .rows import Row

CHECK = Row("generate", 2, 24, 1, 8)
"""Greedy tokens of this call are compared."""

LIMIT = 0.5
"""Largest distance that is accepted. A token drawn at random is about four deviations below the best."""


@torch.no_grad()
def largest_gap(model: Any, tokens: list[list[int]]) -> float:
    """How far a chosen token is below FP32's best at its place, in standard deviations of the logits there; the largest over all.

    Args:
        model: in float32.
        tokens: what the engine chose for the prompts of `CHECK`, `[batch, new]`; each is judged after those before it.
    """
    chosen = torch.tensor(tokens)
    inputs = make_inputs(model.config, CHECK.batch, CHECK.context)
    if model.config.is_encoder_decoder:
        whisper = model.config.model_type == "whisper"
        start = WHISPER_PROMPT if whisper else (model.config.decoder_start_token_id,)
        before = torch.tensor([start] * CHECK.batch)
        logits = model(**inputs, decoder_input_ids=torch.cat([before, chosen[:, :-1]], 1)).logits
    else:
        ids = torch.cat([inputs["input_ids"], chosen[:, :-1]], 1)
        logits = model(input_ids=ids).logits
    logits = logits[:, -chosen.shape[1] :]
    found = logits.gather(2, chosen[..., None])[..., 0]
    return float(((logits.amax(2) - found) / logits.std(2)).max())
