"""INT8 modules, and their fake-quantized counterparts for training: the meaning of a quantized model, before anything is fused."""

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
from .copies import copy_of
from .embedding import Int8Embedding
from .experts import Experts, FloatExperts, Int8Experts
from .fake_attention import FAKE_CHILD, FAKE_IMPLEMENTATION, FakeQuantizedAttention
from .fake_conv import FakeQuantizedConv1d, FakeQuantizedConv2d, fake_quantize_conv, unfake_conv
from .fake_embedding import FakeQuantizedEmbedding, fake_quantize_embedding, unfake_embedding
from .fake_linear import FakeQuantizedConv1D, FakeQuantizedLinear, fake_quantize_linear, unfake_linear
from .fake_pool import FakeQuantizedAvgPool, fake_quantize_pool, unfake_pool
from .fake_quantize import FakeQuantize, fake_quantize_weight
from .find_experts import conceal_experts, describe_experts, expose_experts, find_experts, run_eagerly
from .find_functional import find_functional
from .find_linears import find_linears
from .finite import check_finite
from .functional import FUNCTIONAL, FunctionalWeight, conceal, describe_functional, expose, functional_module, geometry
from .linear import Int8Linear, float_weight
from .multihead import (
    PROJECTIONS,
    UnpackedMultiheadAttention,
    attentions,
    outermost_transformers,
    restore_attention,
    set_attention,
    unpack_attention,
    unpacking_obstacle,
)
from .pool import AVERAGES, Int8AvgPool, Int8AvgPool1d, Int8AvgPool2d
from .relative import FLOAT_IMPLEMENTATION, can_unpack, unpack_relative, unpacked
from .routers import find_routers
from .scores import SCORES_INPUTS, Int8Scores, Scores
from .sites import (
    ATTENTION,
    BFLOAT16_ATTENTION,
    CONV,
    CORES,
    EMBEDDING,
    EXPERTS,
    LINEAR,
    POOL,
    SCORES,
    Sites,
    bare_parameters,
    collect_sites,
    find_sites,
    is_sentence_transformers,
    require_sites,
)

__all__ = [
    "ATTENTION",
    "AVERAGES",
    "BFLOAT16_ATTENTION",
    "Bfloat16Attention",
    "CALLS",
    "CHILD",
    "CONV",
    "CORES",
    "EMBEDDING",
    "EXPERTS",
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
    "Int8Embedding",
    "Int8Experts",
    "Int8Linear",
    "Int8MatMul",
    "Int8Module",
    "Int8Scores",
    "LINEAR",
    "POOL",
    "PROJECTIONS",
    "SCORES",
    "SCORES_INPUTS",
    "Scores",
    "Sites",
    "UnpackedMultiheadAttention",
    "attentions",
    "bare_parameters",
    "can_unpack",
    "check_finite",
    "collect_sites",
    "conceal",
    "conceal_experts",
    "copy_of",
    "describe_experts",
    "describe_functional",
    "expose",
    "expose_experts",
    "fake_quantize_conv",
    "fake_quantize_embedding",
    "fake_quantize_linear",
    "fake_quantize_pool",
    "fake_quantize_weight",
    "find_experts",
    "find_functional",
    "find_linears",
    "find_routers",
    "find_sites",
    "float32_attention",
    "float_weight",
    "functional_module",
    "geometry",
    "int8_attention_forward",
    "is_causal_call",
    "is_sentence_transformers",
    "outermost_transformers",
    "require_sites",
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
