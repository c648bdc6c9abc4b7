"""Ours, static."""

from __future__ import annotations

import torch

from ..models import Job, Loaded, make_inputs
from .transformers_model import TransformersModel

NAME = "int8_static"
TITLE = "optimum_int8 static"
REQUIRES: tuple[str, ...] = ()
BYTES_PER_WEIGHT = 1.0

CALIBRATION = (8, 32)
"""Prompts and their length."""


def load(job: Job) -> Loaded:
    """Quantize, calibrated on prompts; the decoder of an encoder-decoder sees their tokens too."""
    from optimum_int8 import Int8Config, quantize

    model = job.fp32()
    batch = make_inputs(model.config, *CALIBRATION)
    if model.config.is_encoder_decoder:
        draw = torch.Generator().manual_seed(2)
        batch["decoder_input_ids"] = torch.randint(5, model.config.vocab_size - 200, CALIBRATION, generator=draw)
    return TransformersModel(quantize(model, Int8Config(approach="static"), [batch], inplace=True, progress=False))
