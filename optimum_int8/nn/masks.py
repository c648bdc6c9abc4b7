"""Attention masks for the INT8 core: padding stays one row per sequence instead of a square per sequence."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    _ignore_bidirectional_mask_sdpa,
    bidirectional_mask_function,
    prepare_padding_mask,
)

_sdpa_mask = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]


def int8_mask(batch_size: int, q_length: int, kv_length: int, *args: Any, **kwargs: Any) -> Tensor | None:
    """As Transformers' `sdpa_mask`, but what only hides padding is boolean `[batch, 1, 1, keys]`: the kernels see from it which tokens
    need not be computed, and nothing quadratic is made. A model that always builds a mask goes on to work with it
    (T5Gemma2 joins two of them): it gets the whole one."""
    plain = kwargs.get("mask_function") is bidirectional_mask_function and kwargs.get("allow_is_bidirectional_skip")
    special = args or kwargs.get("use_vmap") or kwargs.get("local_size") is not None or kwargs.get("kv_offset", 0)
    padding = kwargs.get("attention_mask")
    if special or not plain or padding is None or padding.dim() != 2:
        return _sdpa_mask(batch_size, q_length, kv_length, *args, **kwargs)
    padding = prepare_padding_mask(padding, kv_length, 0).bool()[:, :kv_length]
    if _ignore_bidirectional_mask_sdpa(padding, kv_length):
        return None
    return padding[:, None, None, :]
