"""Arguments that some models require, and models whose inputs are of their own kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

Maker = Callable[[PreTrainedModel, torch.Generator], Any]
ROWS = 2
LENGTH = 9


def _boxes(model: PreTrainedModel, draw: torch.Generator) -> Tensor:
    low = torch.randint(0, 50, (ROWS, LENGTH, 2), generator=draw)
    return torch.cat([low, low + torch.randint(1, 40, (ROWS, LENGTH, 2), generator=draw)], -1)


def _spectrogram(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    config = model.config
    return {"input_values": torch.randn(ROWS, config.max_length, config.num_mel_bins, generator=draw)}


def _series(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    config = model.config
    return {"past_values": torch.randn(ROWS, config.context_length, config.num_input_channels, generator=draw)}


def _one_series(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    return {"past_values": torch.randn(ROWS, model.config.context_length, generator=draw)}


def _forecast(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    config = model.config
    past = config.context_length + max(config.lags_sequence)
    features = config.num_time_features
    values = {
        "past_values": torch.randn(ROWS, past, generator=draw),
        "past_time_features": torch.randn(ROWS, past, features, generator=draw),
        "past_observed_mask": torch.ones(ROWS, past),
        "future_values": torch.randn(ROWS, config.prediction_length, generator=draw),
        "future_time_features": torch.randn(ROWS, config.prediction_length, features, generator=draw),
    }
    return values


def _image_pair(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    return {"pixel_values": torch.randn(1, 2, 3, 64, 64, generator=draw)}


def _text_and_boxes(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    return {"input_ids": torch.randint(5, 95, (ROWS, LENGTH), generator=draw), "bbox": _boxes(model, draw)}


def _bros(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    return {**_text_and_boxes(model, draw), "bbox": torch.rand(ROWS, LENGTH, 8, generator=draw)}


def _lxmert(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    return {
        "input_ids": torch.randint(5, 95, (ROWS, LENGTH), generator=draw),
        "visual_feats": torch.randn(ROWS, 4, model.config.visual_feat_dim, generator=draw),
        "visual_pos": torch.rand(ROWS, 4, model.config.visual_pos_dim, generator=draw),
    }


def _decisions(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    config = model.config
    return {
        "states": torch.randn(ROWS, 4, config.state_dim, generator=draw),
        "actions": torch.randn(ROWS, 4, config.act_dim, generator=draw),
        "rewards": torch.randn(ROWS, 4, 1, generator=draw),
        "returns_to_go": torch.randn(ROWS, 4, 1, generator=draw),
        "timesteps": torch.arange(4).repeat(ROWS, 1),
        "attention_mask": torch.ones(ROWS, 4, dtype=torch.long),
    }


def _flat_patches(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    vision = model.config.vision_config
    side = vision.patch_size
    patches = torch.randn(ROWS, 8, 2 + 3 * side * side, generator=draw)
    patches[..., :2] = torch.arange(8)[:, None].float() // 3
    return {"flattened_patches": patches, "decoder_input_ids": torch.randint(5, 95, (ROWS, LENGTH), generator=draw)}


def _siglip2(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    vision = getattr(model.config, "vision_config", model.config)
    width = vision.num_channels * vision.patch_size**2
    batch = {
        "pixel_values": torch.randn(ROWS, 16, width, generator=draw),
        "pixel_attention_mask": torch.ones(ROWS, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4]] * ROWS),
    }
    if model.main_input_name == "input_ids":
        batch["input_ids"] = torch.randint(5, 95, (ROWS, LENGTH), generator=draw)
    return batch


def _codes(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    books = getattr(model.config, "num_codebooks", None) or model.config.decoder.num_codebooks
    batch = {"input_ids": torch.randint(5, 60, (ROWS * books, LENGTH), generator=draw)}
    if model.config.is_encoder_decoder:
        batch = {
            "input_ids": torch.randint(5, 95, (ROWS, LENGTH), generator=draw),
            "decoder_input_ids": torch.randint(5, 60, (ROWS * books, LENGTH), generator=draw),
        }
    return batch


def _speech_from_text(model: PreTrainedModel, draw: torch.Generator) -> dict[str, Any]:
    return {
        "input_ids": torch.randint(5, 75, (ROWS, LENGTH), generator=draw),
        "decoder_input_values": torch.randn(ROWS, 6, model.config.num_mel_bins, generator=draw),
        "speaker_embeddings": torch.randn(ROWS, model.config.speaker_embedding_dim, generator=draw),
    }


def _video(model: PreTrainedModel, draw: torch.Generator) -> Tensor:
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "crop_size", None) or getattr(config, "image_size", 32)
    frames = getattr(config, "frames_per_clip", None) or getattr(config, "num_frames", 4)
    return torch.randn(ROWS, min(frames, 16), 3, size, size, generator=draw)


REQUIRED: dict[str, Maker] = {
    "bbox": _boxes,
    "pixel_values_videos": _video,
    "input_values": lambda model, draw: torch.randn(ROWS, 1, 4000, generator=draw),
    "qformer_input_ids": lambda model, draw: torch.randint(5, 95, (ROWS, LENGTH), generator=draw),
    "query_embeds": lambda model, draw: torch.randn(ROWS, 4, model.config.hidden_size, generator=draw),
    "inputs_embeds": lambda model, draw: torch.randn(ROWS, LENGTH, model.config.hidden_size, generator=draw),
    "task_inputs": lambda model, draw: torch.randint(5, 95, (ROWS, 77), generator=draw),
    "future_values": lambda model, draw: None,
}
"""Argument of `forward` to what makes it."""

SPECIAL: dict[str, Callable[[PreTrainedModel, torch.Generator], dict[str, Any]]] = {
    "ASTForAudioClassification": _spectrogram,
    "audio-spectrogram-transformer": _spectrogram,
    "autoformer": _forecast,
    "bros": _bros,
    "decision_transformer": _decisions,
    "efficientloftr": _image_pair,
    "informer": _forecast,
    "lightglue": _image_pair,
    "lxmert": _lxmert,
    "musicgen": _codes,
    "musicgen_decoder": _codes,
    "patchtsmixer": _series,
    "patchtst": _series,
    "pix2struct": _flat_patches,
    "siglip2": _siglip2,
    "siglip2_vision_model": _siglip2,
    "SpeechT5ForTextToSpeech": _speech_from_text,
    "superglue": _image_pair,
    "time_series_transformer": _forecast,
    "timesfm": _one_series,
    "timesfm2_5": _one_series,
    "udop": lambda model, draw: {
        **_text_and_boxes(model, draw),
        "decoder_input_ids": torch.randint(5, 95, (ROWS, 4), generator=draw),
    },
}
"""Class, or model type, to what makes all its inputs."""
