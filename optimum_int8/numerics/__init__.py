"""The definition of the INT8 arithmetic, in plain torch. Every kernel is an optimisation of it, equal to it to the bit.

`float = (q - zero_point) * scale`. All float steps are float32, in the order written here, without fused multiply-add (except where
`float_attention` says so), so that each one rounds as IEEE 754 says and any machine can repeat it. Sums over a row go through 16 lanes:
element `i` is added to lane `i % 16` in order, then lanes fold as `i + 8`, `i + 4`, `i + 2`, `i + 1`.

The reciprocal of a scale is taken once in float32 and multiplied with, as `torch.fake_quantize_per_tensor_affine` does: training
and inference then round alike, and a division per value is saved.

A file per family of operators, the same as in `operators/`; all names are imported from here.
"""

from .activations import (
    ACTIVATIONS,
    CONV_ACTIVATIONS,
    LOG2E,
    activate,
    exp,
    gelu,
    gelu_tanh,
    hardswish,
    leaky_relu,
    relu,
    sigmoid,
    silu,
    softmax_weight,
    tanh,
)
from .attention_float import (
    KEY_BLOCK,
    bfloat16_attention,
    float_attention,
    for_each_query,
    multiply_add,
    round_to_bfloat16,
)
from .attention_int8 import MASKED, int8_attention, mask_scores
from .convolutions import MAX_TAPS, conv, conv_int32
from .embeddings import BAG_MODES, check_bags, embedding, embedding_bag
from .gates import gated
from .heads import take_heads
from .linears import MAX_REDUCTION, linear, matmul_int32
from .norms import head_norm, layer_norm, rms_norm, row_sum, square_root
from .pooling import avg_pool, max_pool
from .positions import checked_angles, rotary
from .products import MAX_FLOAT_REDUCTION, exact_in_float, matmul, matmul_in_float, scores, scores_in_float
from .quantization import (
    QMAX,
    QMIN,
    SIGNED_MAX,
    SYMMETRIC_ZERO_POINT,
    affine_max,
    affine_qparams,
    choose_affine_qparams,
    choose_symmetric_scale,
    choose_weight_scale,
    dequantize_affine,
    quantize_affine,
    quantize_rows,
    quantize_samples,
    quantize_weight,
    reciprocal,
    symmetric_row_scale,
    symmetric_rows,
    symmetric_scale,
)
from .recurrent import GRU_GATES, LSTM_GATES, check_recurrent, gru, lstm
from .sums import add, add_quantized, cat_quantized
from .windows import MAX_POSITIONS, Sizes, Window, averaged_window, pair, pool_window

__all__ = [
    "ACTIVATIONS",
    "BAG_MODES",
    "CONV_ACTIVATIONS",
    "GRU_GATES",
    "KEY_BLOCK",
    "LOG2E",
    "LSTM_GATES",
    "MASKED",
    "MAX_FLOAT_REDUCTION",
    "MAX_POSITIONS",
    "MAX_REDUCTION",
    "MAX_TAPS",
    "QMAX",
    "QMIN",
    "SIGNED_MAX",
    "SYMMETRIC_ZERO_POINT",
    "Sizes",
    "Window",
    "activate",
    "add",
    "add_quantized",
    "affine_max",
    "affine_qparams",
    "averaged_window",
    "avg_pool",
    "bfloat16_attention",
    "cat_quantized",
    "check_bags",
    "check_recurrent",
    "checked_angles",
    "choose_affine_qparams",
    "choose_symmetric_scale",
    "choose_weight_scale",
    "conv",
    "conv_int32",
    "dequantize_affine",
    "embedding",
    "embedding_bag",
    "exact_in_float",
    "exp",
    "float_attention",
    "for_each_query",
    "gated",
    "gelu",
    "gelu_tanh",
    "gru",
    "hardswish",
    "head_norm",
    "int8_attention",
    "layer_norm",
    "leaky_relu",
    "linear",
    "lstm",
    "mask_scores",
    "matmul",
    "matmul_in_float",
    "matmul_int32",
    "max_pool",
    "multiply_add",
    "pair",
    "pool_window",
    "quantize_affine",
    "quantize_rows",
    "quantize_samples",
    "quantize_weight",
    "reciprocal",
    "relu",
    "rms_norm",
    "rotary",
    "round_to_bfloat16",
    "row_sum",
    "scores",
    "scores_in_float",
    "sigmoid",
    "silu",
    "softmax_weight",
    "square_root",
    "symmetric_row_scale",
    "symmetric_rows",
    "symmetric_scale",
    "take_heads",
    "tanh",
]
