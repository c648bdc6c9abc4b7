"""`generate()` of an INT8 model makes an `Int8Cache` where it would make a `DynamicCache`."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import DynamicCache, EncoderDecoderCache

from .int8_cache import Int8Cache

_METHOD = "_prepare_cache_for_generation"
_ARGUMENTS = ("cache", "past_key_values")
"""What models call their cache, in Transformers of today and before."""


class _CacheMaker:
    """Stands in for the method of Transformers that makes caches; those that a user passes or asks for stay what they are."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        given = [model_kwargs.get(name) for name in _ARGUMENTS]
        own = getattr(type(self.model), _METHOD)
        result = own(self.model, generation_config, model_kwargs, *args, **kwargs)
        for name, before in zip(_ARGUMENTS, given, strict=True):
            made = model_kwargs.get(name)
            if made is not None and made is not before:
                model_kwargs[name] = _int8(made)
        return result


def _int8(cache: Any) -> Any:
    if type(cache) is DynamicCache and not cache.offloading:
        return Int8Cache.like(cache)
    if type(cache) is EncoderDecoderCache:
        cache.self_attention_cache = _int8(cache.self_attention_cache)
        cache.cross_attention_cache = _int8(cache.cross_attention_cache)
    return cache


def make_int8_caches(model: nn.Module) -> None:
    """Let `generate()` of the model, and of models inside it, make such caches."""
    for module in model.modules():
        if hasattr(type(module), _METHOD):
            vars(module)[_METHOD] = _CacheMaker(module)


def make_own_caches(model: nn.Module) -> None:
    """Undo `make_int8_caches`."""
    for module in model.modules():
        vars(module).pop(_METHOD, None)
