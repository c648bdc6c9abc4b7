"""INT8 modules, and their fake-quantized counterparts for training: the meaning of a quantized model, before anything is fused."""

import importlib
from typing import Any

from .attention import (
    CHILD,
    IMPLEMENTATION,
    Int8Attention,
    float32_attention,
    int8_attention_forward,
    is_causal_call,
    uses_attention_interface,
)
from .base import Int8Module
from .bfloat16_attention import Bfloat16Attention
from .call_modules import CALLS, INT8_CALLS, Int8Add, Int8Call, Int8Cat, Int8MatMul
from .conv import Int8Conv, Int8Conv1d, Int8Conv2d
from .conv3d import Int8Conv3d
from .copies import copy_of
from .core_caller import FLOAT_IMPLEMENTATION
from .embedding import Int8Embedding
from .embedding_bag import Int8EmbeddingBag
from .expert_weight import Experts
from .experts import FloatExperts, Int8Experts, run_eagerly
from .fake import (
    FAKE_CHILD,
    FAKE_IMPLEMENTATION,
    FakeQuantize,
    FakeQuantizedAttention,
    FakeQuantizedAvgPool,
    FakeQuantizedConv1D,
    FakeQuantizedConv1d,
    FakeQuantizedConv2d,
    FakeQuantizedEmbedding,
    FakeQuantizedLinear,
    fake_quantize_conv,
    fake_quantize_embedding,
    fake_quantize_linear,
    fake_quantize_pool,
    fake_quantize_weight,
    unfake_conv,
    unfake_embedding,
    unfake_linear,
    unfake_pool,
)
from .families import (
    PROJECTIONS,
    UnpackedMultiheadAttention,
    can_unpack,
    unpack_attention,
    unpack_relative,
    unpacked,
    unpacking_obstacle,
)
from .finite import check_finite
from .functional_weight import FUNCTIONAL, FunctionalWeight, functional_module, geometry
from .implementations import attentions, outermost_transformers, restore_attention, set_attention
from .libraries import is_sentence_transformers
from .linear import Int8Linear, float_weight
from .pool import AVERAGES, Int8AvgPool, Int8AvgPool1d, Int8AvgPool2d
from .recurrent import INT8_RECURRENT, Int8GRU, Int8GRUCell, Int8LSTM, Int8LSTMCell, recurrent_obstacle
from .recurrent_weight import Int8Recurrent
from .scores import SCORES_INPUTS, Int8Scores, Scores

__all__ = [
    "AVERAGES",
    "Bfloat16Attention",
    "CALLS",
    "CHILD",
    "Experts",
    "FAKE_CHILD",
    "FAKE_IMPLEMENTATION",
    "FLOAT_IMPLEMENTATION",
    "FUNCTIONAL",
    "FloatExperts",
    "FakeQuantize",
    "FakeQuantizedAttention",
    "FakeQuantizedAvgPool",
    "FakeQuantizedConv1D",
    "FakeQuantizedConv1d",
    "FakeQuantizedConv2d",
    "FakeQuantizedEmbedding",
    "FakeQuantizedLinear",
    "FunctionalWeight",
    "IMPLEMENTATION",
    "INT8_CALLS",
    "INT8_RECURRENT",
    "Int8Add",
    "Int8Attention",
    "Int8AvgPool",
    "Int8AvgPool1d",
    "Int8AvgPool2d",
    "Int8Call",
    "Int8Cat",
    "Int8Conv",
    "Int8Conv1d",
    "Int8Conv2d",
    "Int8Conv3d",
    "Int8Embedding",
    "Int8EmbeddingBag",
    "Int8Experts",
    "Int8GRU",
    "Int8GRUCell",
    "Int8LSTM",
    "Int8LSTMCell",
    "Int8Linear",
    "Int8MatMul",
    "Int8Module",
    "Int8Recurrent",
    "Int8Scores",
    "PROJECTIONS",
    "SCORES_INPUTS",
    "Scores",
    "UnpackedMultiheadAttention",
    "attentions",
    "can_unpack",
    "check_finite",
    "copy_of",
    "fake_quantize_conv",
    "fake_quantize_embedding",
    "fake_quantize_linear",
    "fake_quantize_pool",
    "fake_quantize_weight",
    "float32_attention",
    "float_weight",
    "functional_module",
    "geometry",
    "int8_attention_forward",
    "is_causal_call",
    "is_sentence_transformers",
    "outermost_transformers",
    "recurrent_obstacle",
    "restore_attention",
    "run_eagerly",
    "set_attention",
    "unfake_conv",
    "unfake_embedding",
    "unfake_linear",
    "unfake_pool",
    "unpack_attention",
    "unpack_relative",
    "unpacked",
    "unpacking_obstacle",
    "uses_attention_interface",
]

_IN_SITES = frozenset(
    {
        "ATTENTION",
        "BFLOAT16_ATTENTION",
        "CONV",
        "EMBEDDING",
        "EXPERTS",
        "LINEAR",
        "POOL",
        "SCORES",
        "Sites",
        "bare_parameters",
        "collect_sites",
        "conceal",
        "conceal_experts",
        "expose",
        "expose_experts",
        "find_experts",
        "find_functional",
        "find_linears",
        "find_routers",
        "find_sites",
        "require_sites",
    }
)
"""Names that were here before `optimum_int8.sites` was."""


def __getattr__(name: str) -> Any:
    if name in _IN_SITES:
        return getattr(importlib.import_module("optimum_int8.sites"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
