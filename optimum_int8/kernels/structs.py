"""The struct of each operator, as `csrc/optimum_int8.h` declares it; see there for its fields."""

from __future__ import annotations

import ctypes
from typing import Any

_i32 = ctypes.c_int32
_i64 = ctypes.c_int64
_f32 = ctypes.c_float
_ptr = ctypes.c_void_p


def ints(*names: str) -> list[Any]:
    """Fields of 32 bits."""
    return [(name, _i32) for name in names]


HEAD: list[Any] = [("op", _i32), ("key_side", _i32), ("input", _i32 * 6), ("output", _i32 * 4)]
"""What every struct begins with."""
_OUTPUT: list[Any] = [("output_scale", _f32), ("output_zero_point", _i32)]
_INPUT: list[Any] = [("input_scale", _f32), ("input_zero_point", _i32)]
_WEIGHT: list[Any] = [("weight", _ptr), ("weight_sum", _ptr), ("weight_scale", _ptr), ("bias", _ptr)]
_HEADS: list[Any] = [("columns", _i32), ("heads", _i32), ("key_heads", _i32), ("causal", _i32)]


class ImageWindow(ctypes.Structure):
    """`oi8_window`."""

    _fields_ = [
        *ints("height", "width", "out_height", "out_width", "kernel_height", "kernel_width", "stride_y"),
        *ints("stride_x", "top", "left", "dilation_y", "dilation_x"),
    ]


class Instruction(ctypes.Structure):
    """`oi8_instruction`: what the struct of every operator begins with; theirs repeat its fields."""

    _fields_ = HEAD


class Quantize(ctypes.Structure):
    """`oi8_quantize`."""

    _fields_ = [*HEAD, ("columns", _i32), ("groups", _i32), ("column", _i32), *_OUTPUT]


class Linear(ctypes.Structure):
    """`oi8_linear`."""

    _fields_ = [
        *HEAD,
        *ints("columns", "reduction", "activation"),
        *_INPUT,
        *_OUTPUT,
        *_WEIGHT,
        ("output_scales", _ptr),
        ("prepared", _ptr),
    ]


class Norm(ctypes.Structure):
    """`oi8_norm`."""

    _fields_ = [
        *HEAD,
        *ints("columns", "kind"),
        ("epsilon", _f32),
        *_OUTPUT,
        ("weight", _ptr),
        ("bias", _ptr),
    ]


class Attention(ctypes.Structure):
    """`oi8_attention`."""

    _fields_ = [
        *HEAD,
        *_HEADS,
        ("scaling", _f32),
        ("column", _i32 * 3),
        ("scale_column", _i32 * 3),
        ("input_scale", _f32 * 3),
        *_OUTPUT,
    ]


class FloatAttention(ctypes.Structure):
    """`oi8_float_attention`."""

    _fields_ = [
        *HEAD,
        *_HEADS,
        ("bfloat16", _i32),
        ("scaling", _f32),
        ("softcap", _f32),
        ("column", _i32 * 3),
        *_OUTPUT,
    ]


class Embedding(ctypes.Structure):
    """`oi8_embedding`."""

    _fields_ = [
        *HEAD,
        ("rows", _i64),
        *ints("columns", "reserved"),
        ("weight", _ptr),
        ("weight_scale", _ptr),
    ]


class Conv(ctypes.Structure):
    """`oi8_conv`."""

    _fields_ = [
        *HEAD,
        *ints("columns", "reduction", "groups", "depthwise", "activation", "final_activation"),
        ("slope", _f32),
        *_INPUT,
        ("residual_scale", _f32),
        ("residual_zero_point", _i32),
        *_OUTPUT,
        ("window", ImageWindow),
        *_WEIGHT,
        ("prepared", _ptr),
    ]


class Pool(ctypes.Structure):
    """`oi8_pool`."""

    _fields_ = [
        *HEAD,
        *ints("columns", "floats", "padding_counts"),
        *_INPUT,
        *_OUTPUT,
        ("window", ImageWindow),
    ]


class QuantizeSample(ctypes.Structure):
    """`oi8_quantize_sample`."""

    _fields_ = [*HEAD, ("columns", _i32)]


class Add(ctypes.Structure):
    """`oi8_add`."""

    _fields_ = [
        *HEAD,
        *ints("columns", "output_column"),
        *_INPUT,
        ("other_scale", _f32),
        ("other_zero_point", _i32),
        *_OUTPUT,
    ]


class Recurrent(ctypes.Structure):
    """`oi8_recurrent`."""

    _fields_ = [
        *HEAD,
        *ints("columns", "gates", "directions", "batch", "length", "batch_first"),
        ("sizes", _ptr),
        ("starts", _ptr),
        *_WEIGHT,
        ("prepared", _ptr),
    ]


class EmbeddingBag(ctypes.Structure):
    """`oi8_embedding_bag`."""

    _fields_ = [
        *HEAD,
        ("rows", _i64),
        *ints("columns", "mode"),
        ("skipped", _i64),
        ("indices", _ptr),
        ("starts", _ptr),
        ("factors", _ptr),
        ("weight", _ptr),
        ("weight_scale", _ptr),
    ]


class Gated(ctypes.Structure):
    """`oi8_gated`."""

    _fields_ = [*HEAD, ("columns", _i32), ("activation", _i32), ("column", _i32 * 2), *_OUTPUT]


class Rotary(ctypes.Structure):
    """`oi8_rotary`."""

    _fields_ = [*HEAD, *ints("columns", "heads", "turned", "interleaved", "column")]


class HeadNorm(ctypes.Structure):
    """`oi8_head_norm`."""

    _fields_ = [
        *HEAD,
        *ints("columns", "heads", "kind"),
        ("epsilon", _f32),
        *ints("column", "reserved"),
        ("weight", _ptr),
        ("bias", _ptr),
    ]


class Append(ctypes.Structure):
    """`oi8_append`."""

    _fields_ = [*HEAD, ("columns", _i32), ("column", _i32)]


class TakeHeads(ctypes.Structure):
    """`oi8_take_heads`."""

    _fields_ = [*HEAD, *ints("columns", "heads", "column", "stride")]


class AppendInt8(ctypes.Structure):
    """`oi8_append_int8`."""

    _fields_ = [*HEAD, *ints("columns", "groups", "column"), ("output_scale", _f32)]
