"""Sounds: waveforms, and features of their frames."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from transformers import PreTrainedModel

from tests.sweep.inputs_images import ROWS, _tensors, seek

SAMPLES = 4000
FRAMES = 64
MONO = ("omniasr", "pe_audio", "dac", "xcodec", "neucodec", "vibevoice", "univnet", "dacvae")
"""Models whose waveform has an axis of channels, and whose configuration does not say so."""


def sounds(model: PreTrainedModel, names: Any, draw: torch.Generator) -> dict[str, Any]:
    """`input_values` (a waveform) or `input_features` (frames), with the masks that `forward` requires."""
    batch: dict[str, Any] = {}
    if "input_features" in names:
        bins = seek(model.config, "num_mel_bins", "input_feat_per_channel", "feature_size", "n_mels", default=80)
        frames = FRAMES
        shape = (ROWS, bins, frames) if _bins_first(model) else (ROWS, frames, bins)
        batch["input_features"] = torch.randn(shape, generator=draw)
        if "input_features_mask" in names:
            batch["input_features_mask"] = torch.ones(ROWS, frames, dtype=torch.long)
        if "feature_attention_mask" in names:
            batch["feature_attention_mask"] = torch.ones(ROWS, frames, dtype=torch.long)
        if "attention_mask" in names and "input_ids" not in names:
            batch["attention_mask"] = torch.ones(ROWS, frames, dtype=torch.long)
    elif "input_values" in names:
        channels = seek(model.config, "audio_channels") or (1 if model.config.model_type.startswith(MONO) else None)
        shape = (ROWS, channels, SAMPLES) if channels else (ROWS, SAMPLES)
        batch["input_values"] = torch.randn(shape, generator=draw)
    return batch


def _bins_first(model: PreTrainedModel) -> bool:
    """Whether frames are the last axis, as Whisper's."""
    source = inspect.getsource(inspect.getmodule(type(model)))
    return "WhisperEncoder" in source or any(
        word in model.config.model_type
        for word in ("whisper", "qwen2_audio", "omni", "voxtral", "musicflamingo", "audioflamingo")
    )


def placeholders(model: PreTrainedModel, batch: dict[str, Any]) -> list[int]:
    """The audio tokens of one row of text."""
    token = next(
        (
            t
            for name in ("audio_token_id", "audio_token_index")
            if isinstance(t := getattr(model.config, name, None), int)
        ),
        None,
    )
    name = next((n for n in ("input_features", "input_values") if n in batch), None)
    base = getattr(model, "model", model)
    owner = model if hasattr(model, "get_audio_features") else base
    if token is None or name is None or not hasattr(owner, "get_audio_features"):
        return []
    known = inspect.signature(owner.get_audio_features).parameters
    with torch.no_grad():
        found = owner.get_audio_features(**{k: v for k, v in batch.items() if k in known})
    found = getattr(found, "pooler_output", found)
    return [token] * (sum(math.prod(t.shape[:-1]) for t in _tensors(found)) // ROWS)
