"""Inputs of one call for any model, from the signature of its `forward` and its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.sweep import inputs_audio, inputs_images, inputs_other

ROWS = 2
LENGTH = 9
Batch = dict[str, Any]


def make_inputs(model: PreTrainedModel, class_name: str, seed: int = 1, text_only: bool = False) -> Batch:
    """Keyword arguments of a call.

    Args:
        text_only: leave out images and sounds where the model also takes text.

    Raises:
        LookupError: `forward` requires an argument that nothing here makes.
    """
    draw = torch.Generator().manual_seed(seed)
    names = inspect.signature(model.forward).parameters
    special = inputs_other.SPECIAL.get(class_name) or inputs_other.SPECIAL.get(model.config.model_type)
    if special is not None:
        return special(model, draw)
    batch: Batch = {}
    has_text = "input_ids" in names
    if "hidden_states" in names and ("grid_thw" in names or "image_grid_thw" in names):
        patches = inputs_images.patches(model.config, names, draw)
        return {**patches, "hidden_states": patches.pop("pixel_values")}
    if not (text_only and has_text):
        batch |= inputs_images.images(model, names, draw)
        if not batch or "input_features" in names or "input_values" in names:
            batch |= inputs_audio.sounds(model, names, draw)
    if has_text:
        batch |= text(model, names, draw, batch)
    for name, parameter in names.items():
        required = parameter.default is parameter.empty and parameter.kind == parameter.POSITIONAL_OR_KEYWORD
        if required and name not in batch:
            maker = inputs_other.REQUIRED.get(name)
            if maker is None:
                raise LookupError(f"forward requires {name}")
            batch[name] = maker(model, draw)
    shifted = class_name.endswith(("SequenceClassification", "QuestionAnswering"))  # they make them themselves
    if (
        model.config.is_encoder_decoder
        and not shifted
        and "decoder_input_ids" in names
        and "decoder_input_ids" not in batch
    ):
        batch["decoder_input_ids"] = tokens(model, draw, LENGTH - 2)
    return batch


def tokens(model: PreTrainedModel, draw: torch.Generator, length: int = LENGTH, rows: int = ROWS) -> Tensor:
    """Ordinary tokens: what is special stands at the ends of the vocabulary (see configurations.py)."""
    sizes = [
        getattr(config, "vocab_size", None)
        for config in (model.config, model.config.get_text_config(decoder=model.config.is_encoder_decoder))
    ]
    size = min([s for s in sizes if isinstance(s, int) and s > 0] or [100])
    drawn = torch.randint(min(5, size // 2), min(size, 95), (rows, length), generator=draw)
    for name in ("image_token_id", "video_token_id"):  # in their places no more than the features that are given
        drawn[drawn == getattr(model.config, name, None)] = min(30, size - 1)
    return drawn


def text(model: PreTrainedModel, names: Any, draw: torch.Generator, others: Batch) -> Batch:
    """Tokens with room for what images and sounds are replaced by; without these, a mask whose first row is padded."""
    ids = tokens(model, draw)
    mask = torch.ones_like(ids)
    room = [*inputs_images.placeholders(model, others), *inputs_audio.placeholders(model, others)]
    if room:
        lead = torch.tensor(room).repeat(ROWS, 1)
        ids = torch.cat([ids[:, :2], lead, ids[:, 2:]], 1)
        mask = torch.ones_like(ids)
    elif "attention_mask" in names and not others:
        causal = model.can_generate() and not model.config.is_encoder_decoder
        padded = slice(0, 3) if causal else slice(LENGTH - 3, LENGTH)
        mask[0, padded] = 0
        pad = getattr(model.config, "pad_token_id", None)
        ids[0, padded] = pad if isinstance(pad, int) and 0 <= pad < 100 else 1
    if type(model).__name__.endswith("SequenceClassification") and model.config.is_encoder_decoder:
        mask = torch.ones_like(ids)
        ids[:, -1] = model.config.eos_token_id  # its state is what is classified
    batch: Batch = {"input_ids": ids}
    if "attention_mask" in names:
        batch["attention_mask"] = mask
    if "mm_token_type_ids" in names and room:
        batch["mm_token_type_ids"] = (ids >= 100).long()
    if "token_type_ids" in names and room and model.config.model_type in ("gemma3", "paligemma", "t5gemma2"):
        batch["token_type_ids"] = (ids >= 100).long()
    return batch


Maker = Callable[[PreTrainedModel, torch.Generator], Any]
