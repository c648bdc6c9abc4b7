"""Models with random weights, built from a configuration alone, and inputs of any shape for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ..errors import ConfigError

PRESETS: dict[str, dict[str, Any]] = {
    "bert-base": {"model_type": "bert"},
    "bert-large": {
        "model_type": "bert", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "minilm-l6": {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "distilbert-base": {"model_type": "distilbert"},
    "roberta-base": {
        "model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
    },
    "electra-base": {
        "model_type": "electra", "embedding_size": 768, "hidden_size": 768, "intermediate_size": 3072,
        "num_attention_heads": 12,
    },
    "electra-small": {"model_type": "electra"},
    "albert-base": {
        "model_type": "albert", "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
    },
}  # fmt: skip
"""What differs from the defaults of the Transformers configuration class, for models that people name by size."""

SIZE_NAMES = {
    "hidden": ("hidden_size", "dim", "d_model", "n_embd"),
    "layers": ("num_hidden_layers", "n_layers", "num_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_heads", "num_heads", "n_head"),
    "intermediate": ("intermediate_size", "hidden_dim", "d_ff", "n_inner", "encoder_ffn_dim"),
    "vocabulary": ("vocab_size",),
}
"""Sizes that every architecture has, and what configuration classes call them."""

DEFAULT_IMAGE = 224
"""Height and width of random images for a model of any size of image (ResNet)."""

LOWEST_TOKEN = 10
"""Random tokens start here: lower numbers are special, and some models derive masks from them."""


def find_config(name: str) -> PreTrainedConfig:
    """A configuration by preset name, from a `config.json` or its folder, or from the Hub.

    Raises:
        ConfigError: none of these.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return AutoConfig.for_model(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{str(path)!r} is not a model configuration: {' '.join(str(error).split())}") from error
    preset = PRESETS.get(re.sub(r"-(uncased|cased|v2)$", "", name.rpartition("/")[2].lower()))
    if preset:
        return AutoConfig.for_model(**preset)
    try:
        return AutoConfig.from_pretrained(name)
    except Exception as error:  # the Hub client raises many unrelated types
        raise ConfigError(
            f"{name!r} is no folder, no config.json and no preset ({', '.join(PRESETS)}), and the Hub gave no configuration"
        ) from error


def make_config(model_type: str, **sizes: int | None) -> PreTrainedConfig:
    """A configuration of `model_type` with other sizes: keys of `SIZE_NAMES`; None keeps the default.

    Raises:
        ConfigError: an unknown model type, or a size that it does not have.
    """
    try:
        config = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ConfigError(
            f"unknown model type {model_type!r}; expected one of Transformers', as bert or distilbert"
        ) from error
    for size, value in sizes.items():
        if value is None:
            continue
        name = next((name for name in SIZE_NAMES[size] if hasattr(config, name)), None)
        if name is None:
            raise ConfigError(f"a {model_type} configuration has no {size} size; expected one of {SIZE_NAMES[size]}")
        setattr(config, name, value)
    return config


def random_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """The model of `config.architectures`, else the headless one, in float32 with random weights.

    Raises:
        ConfigError: the sizes do not fit together (a width that is no multiple of the heads, for example).
    """
    names = config.architectures or []
    loader = getattr(transformers, names[0], None) if names else None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            if loader is not None:
                return loader._from_config(config, dtype=torch.float32).eval()
            return transformers.AutoModel.from_config(config, dtype=torch.float32).eval()
        except (ValueError, RuntimeError, TypeError, ZeroDivisionError) as error:
            raise ConfigError(f"no {config.model_type} model can be made: {' '.join(str(error).split())}") from error


def example_inputs(model: PreTrainedModel, batch: int, sequence: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random inputs for one forward call: tokens `[batch, sequence]` with a full mask, or images `[batch, c, h, w]`.

    Raises:
        ConfigError: the sequence is longer than the model takes, or its input is neither text nor images.
    """
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    if model.main_input_name == "pixel_values":
        size = getattr(config, "image_size", None) or DEFAULT_IMAGE
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.randn(batch, config.num_channels, height, width, generator=generator)}
    if model.main_input_name != "input_ids":
        raise ConfigError(f"a {type(model).__name__} takes {model.main_input_name}; expected text or images")
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and sequence > limit:
        raise ConfigError(f"a sequence of {sequence} tokens is asked for; the model takes at most {limit}")
    low = LOWEST_TOKEN if config.vocab_size > 2 * LOWEST_TOKEN else 0
    tokens = torch.randint(low, config.vocab_size, (batch, sequence), generator=generator)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens.flip(1)
    return inputs
