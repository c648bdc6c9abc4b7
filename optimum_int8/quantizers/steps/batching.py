"""Batches of examples of similar length, so that little time goes into padding."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...errors import ConfigError
from ...evaluation.progress import progress_bar

Features = dict[str, Any]
"""One example as the model's inputs, not padded: name to list of numbers."""

Batch = dict[str, torch.Tensor]
"""Padded inputs of several examples: name to tensor `[batch, ...]`."""

IGNORED = -100
"""The label of positions that do not count, as in the losses of torch and Transformers."""


def length_batches(lengths: Sequence[int], batch_size: int, *, seed: int | None = None) -> list[list[int]]:
    """Indices of examples, grouped by similar length.

    Args:
        lengths: one per example.
        batch_size: examples per batch; the last one may be smaller.
        seed: shuffles the order of the batches. Observers that average over batches would otherwise see short examples
            first and long ones last.

    Raises:
        ConfigError: `batch_size` below 1.

    Example:
        >>> length_batches([5, 1, 4, 2], 2)
        [[2, 0], [1, 3]]
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    # Longest first: a batch too large for the memory shows at once.
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)][::-1]
    if seed is not None:
        random.Random(seed).shuffle(batches)
    return batches


def feature_length(features: Features) -> int:
    """Number of tokens, of the longest choice where there are several; 0 for inputs that are not tokens."""
    tokens = features.get("input_ids", ())
    return max(map(len, tokens)) if len(tokens) and isinstance(tokens[0], list) else len(tokens)


def without(features: Sequence[Features], *names: str) -> list[Features]:
    """The examples without what a task keeps in addition to the model's inputs."""
    return [{name: value for name, value in example.items() if name not in names} for example in features]


def run_batches(
    features: Sequence[Features],
    collate: Callable[[Sequence[Features]], Batch],
    forward: Callable[[Batch], Sequence[Any]],
    *,
    batch_size: int,
    description: str,
) -> list[Any]:
    """Run all examples behind a progress bar, in batches of similar length.

    Args:
        forward: one padded batch to one result per example.

    Returns:
        One result per example, in the order of `features`.
    """
    results: list[Any] = [None] * len(features)
    batches = length_batches([feature_length(f) for f in features], batch_size)
    with torch.inference_mode():
        for indices in progress_bar(batches, description):
            outputs = forward(collate([features[index] for index in indices]))
            for index, output in zip(indices, outputs, strict=True):
                results[index] = output
    return results
