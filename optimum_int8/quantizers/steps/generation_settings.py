"""What the pipelines of Transformers 4 passed to `generate` unless told otherwise: a model's own settings for a task, and its length."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from ...errors import ConfigError

USUAL_NEW_TOKENS = 128
"""Longest text to generate unless the user or the model says otherwise, or the model has fewer positions."""


def task_settings(config: PreTrainedConfig, *tasks: str) -> dict[str, Any]:
    """`config.task_specific_params` of the first of `tasks` that it has: arguments of `generate`, and perhaps a `prefix` (T5, BART)."""
    known = getattr(config, "task_specific_params", None) or {}
    found: dict[str, Any] = next((known[task] for task in tasks if isinstance(known.get(task), dict)), {})
    plain = GenerationConfig()
    return {name: value for name, value in found.items() if name == "prefix" or hasattr(plain, name)}


def with_length(model: PreTrainedModel, settings: Mapping[str, Any], max_new_tokens: int | None) -> dict[str, Any]:
    """Settings with a length: the one given, or that of `settings`, or the model's own, or `USUAL_NEW_TOKENS`."""
    limits = ("max_new_tokens", "max_length")
    own = model.generation_config
    if max_new_tokens is None:
        if any(settings.get(name) or getattr(own, name, None) for name in limits):
            return dict(settings)
        max_new_tokens = min(USUAL_NEW_TOKENS, positions(model.config))
    return {**{name: value for name, value in settings.items() if name not in limits}, "max_new_tokens": max_new_tokens}


def positions(config: PreTrainedConfig) -> int:
    """How many tokens the decoder has positions for; T5 and its relatives, which number none, have no limit."""
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else sys.maxsize


def check_length(config: PreTrainedConfig, settings: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for a text to generate that is longer than the decoder's positions, or not one token long."""
    tokens = settings.get("max_new_tokens")
    most = positions(config)
    if tokens is not None and not 1 <= tokens <= most:
        limit = "" if most == sys.maxsize else f", and at most the {most} that the model takes"
        raise ConfigError(f"max_new_tokens is {tokens}; expected at least 1{limit}")
