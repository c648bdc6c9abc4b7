"""INT8 modules: the meaning of a quantized model, before anything is fused."""

from .attention import (
    CHILD,
    IMPLEMENTATION,
    Int8Attention,
    int8_attention_forward,
    is_causal_call,
    uses_attention_interface,
)
from .base import Int8Module
from .conv import Int8Conv, Int8Conv1d, Int8Conv2d
from .embedding import Int8Embedding
from .linear import Int8Linear, float_weight
from .sites import ATTENTION, CONV, EMBEDDING, LINEAR, Sites, find_sites, require_sites

__all__ = [
    "ATTENTION",
    "CHILD",
    "CONV",
    "EMBEDDING",
    "IMPLEMENTATION",
    "LINEAR",
    "Int8Attention",
    "Int8Conv",
    "Int8Conv1d",
    "Int8Conv2d",
    "Int8Embedding",
    "Int8Linear",
    "Int8Module",
    "Sites",
    "find_sites",
    "float_weight",
    "int8_attention_forward",
    "is_causal_call",
    "require_sites",
    "uses_attention_interface",
]
