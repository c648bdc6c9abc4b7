"""The operators, `torch.ops.optimum_int8.*`: one native call each, or `numerics` where there is no library.

One file per family, named as in `numerics`; each defines its operators by `registry.define`. Quantized tensors travel as uint8 with their
`scale` and `zero_point`: scalars when static, one per row when dynamic. Models call `quantize`, `quantize_rows`, `linear`, `embedding`,
`attention`, `conv`, `add` and the like; those on rows and the `_quantized` ones are what fine-grained FX rewrites to.
"""

from . import attention_appended, attention_float_appended, convolutions, embedding_bags, pooling, recurrent
from .attention_float import float_attention
from .attention_int8 import attention
from .embeddings import embedding
from .gates import gated
from .head_norms import head_norm
from .heads import take_heads
from .linears import linear
from .norms import norm
from .positions import rotary
from .products import matmul, scores
from .programs import run_as_program
from .quantization import dequantize, quantize, quantize_rows
from .registry import (
    APPENDED,
    EITHER,
    IMAGES,
    INSIDE,
    MASK,
    OUTSIDE,
    REGISTRY,
    ROWS,
    Operator,
    bind,
    define,
    operator_of,
    operator_with_form,
    parameters,
)
from .roles import (
    CONVOLUTION,
    DEQUANTIZATION,
    LINEAR,
    PER_GROUP,
    PER_ROW,
    PER_SAMPLE,
    PER_TENSOR,
    POOLING,
    QUANTIZATION,
    Appending,
    OnRows,
    Quantizing,
)
from .sums import add

__all__ = [
    "APPENDED",
    "CONVOLUTION",
    "DEQUANTIZATION",
    "EITHER",
    "IMAGES",
    "INSIDE",
    "LINEAR",
    "MASK",
    "OUTSIDE",
    "PER_GROUP",
    "PER_ROW",
    "PER_SAMPLE",
    "PER_TENSOR",
    "POOLING",
    "QUANTIZATION",
    "REGISTRY",
    "ROWS",
    "Appending",
    "OnRows",
    "Operator",
    "Quantizing",
    "add",
    "attention",
    "attention_appended",
    "attention_float_appended",
    "bind",
    "convolutions",
    "define",
    "dequantize",
    "embedding",
    "embedding_bags",
    "float_attention",
    "gated",
    "head_norm",
    "linear",
    "matmul",
    "norm",
    "operator_of",
    "operator_with_form",
    "parameters",
    "pooling",
    "quantize",
    "quantize_rows",
    "recurrent",
    "rotary",
    "run_as_program",
    "scores",
    "take_heads",
]
