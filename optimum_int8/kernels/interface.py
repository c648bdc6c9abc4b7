"""The C interface of the native library, repeated: `csrc/optimum_int8.h` documents every name and field.

What the library itself reports is compared with this when it is loaded (`interface_facts.py`).
"""

from __future__ import annotations

import ctypes

from .structs import (
    Add,
    Append,
    AppendInt8,
    Attention,
    Conv,
    Embedding,
    EmbeddingBag,
    FloatAttention,
    Gated,
    HeadNorm,
    Linear,
    Norm,
    Pool,
    Quantize,
    QuantizeSample,
    Recurrent,
    Rotary,
    TakeHeads,
    ints,
)

ABI = 17
ISAS = ("portable", "avx2", "avx512_vnni", "amx")
"""Instruction sets in rising order, numbered as `enum oi8_isa`."""
ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu", "tanh")
NORMS = ("none", "layer_norm", "rms_norm")
BAG_MODES = ("sum", "mean", "max")
MASKS = ("none", "bool", "float")
KEYS = 4
"""Kinds of keys that the attention cores of one program read."""
STATUSES = ("ok", "bad_argument", "out_of_memory", "bad_index", "unsupported_isa")

_i32 = ctypes.c_int32
_i64 = ctypes.c_int64
_ptr = ctypes.c_void_p


class Value(ctypes.Structure):
    """`oi8_value`."""

    _fields_ = [("external", _i32), ("row_bytes", _i32), ("offset", _i64), ("periodic", _i32), ("rows", _i32)]


class NativeProgram(ctypes.Structure):
    """`oi8_program`."""

    _fields_ = [
        ("instructions", ctypes.POINTER(_ptr)),
        ("values", ctypes.POINTER(Value)),
        *ints("instruction_count", "value_count"),
        ("arena_row_bytes", _i64),
        *ints("spatial", "reserved"),
    ]


class Keys(ctypes.Structure):
    """`oi8_keys`."""

    _fields_ = [("mask", _ptr), *ints("mask_kind", "length"), ("mask_stride", _i64 * 3), *ints("rows", "shared")]


class Call(ctypes.Structure):
    """`oi8_call`."""

    _fields_ = [
        *ints("batch", "length"),
        ("external", ctypes.POINTER(_ptr)),
        ("keys", Keys * KEYS),
        *ints("skip_padding", "reserved"),
    ]


class Fact(ctypes.Structure):
    """`oi8_fact`: a constant of the interface."""

    _fields_ = [("name", ctypes.c_char_p), ("value", _i64)]


OPERATORS: dict[str, type[ctypes.Structure]] = {
    "quantize": Quantize,
    "linear": Linear,
    "norm": Norm,
    "attention": Attention,
    "embedding": Embedding,
    "conv": Conv,
    "max_pool": Pool,
    "avg_pool": Pool,
    "quantize_sample": QuantizeSample,
    "add": Add,
    "float_attention": FloatAttention,
    "recurrent": Recurrent,
    "embedding_bag": EmbeddingBag,
    "gated": Gated,
    "rotary": Rotary,
    "head_norm": HeadNorm,
    "append": Append,
    "take_heads": TakeHeads,
    "append_int8": AppendInt8,
}
"""The struct of each operator, in the order of `enum oi8_op`."""
OPS = tuple(OPERATORS)
