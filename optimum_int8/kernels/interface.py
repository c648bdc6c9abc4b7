"""The C interface of the native library, repeated: `csrc/optimum_int8.h` documents every name and field.

What the library itself reports is compared with this when it is loaded (`differences`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from ..numerics import CONV_ACTIVATIONS

ABI = 13
ISAS = ("portable", "avx2", "avx512_vnni", "amx")
"""Instruction sets in rising order, numbered as `enum oi8_isa`."""
ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu", "tanh")
NORMS = ("none", "layer_norm", "rms_norm")
BAG_MODES = ("sum", "mean", "max")
MASKS = ("none", "bool", "float")
STATUSES = ("ok", "bad_argument", "out_of_memory", "bad_index", "unsupported_isa")

_i32 = ctypes.c_int32
_i64 = ctypes.c_int64
_f32 = ctypes.c_float
_ptr = ctypes.c_void_p


def _ints(*names: str) -> list[Any]:
    return [(name, _i32) for name in names]


_HEAD: list[Any] = [("op", _i32), ("key_side", _i32), ("input", _i32 * 6), ("output", _i32 * 4)]
_OUTPUT: list[Any] = [("output_scale", _f32), ("output_zero_point", _i32)]
_INPUT: list[Any] = [("input_scale", _f32), ("input_zero_point", _i32)]
_WEIGHT: list[Any] = [("weight", _ptr), ("weight_sum", _ptr), ("weight_scale", _ptr), ("bias", _ptr)]
_HEADS: list[Any] = [("columns", _i32), ("heads", _i32), ("key_heads", _i32), ("causal", _i32)]


class Value(ctypes.Structure):
    """`oi8_value`."""

    _fields_ = [("external", _i32), ("row_bytes", _i32), ("offset", _i64), ("periodic", _i32), ("rows", _i32)]


class ImageWindow(ctypes.Structure):
    """`oi8_window`."""

    _fields_ = [
        *_ints("height", "width", "out_height", "out_width", "kernel_height", "kernel_width", "stride_y"),
        *_ints("stride_x", "top", "left", "dilation_y", "dilation_x"),
    ]


class Instruction(ctypes.Structure):
    """`oi8_instruction`: what the struct of every operator begins with; theirs repeat its fields."""

    _fields_ = _HEAD


class Quantize(ctypes.Structure):
    """`oi8_quantize`."""

    _fields_ = [*_HEAD, ("columns", _i32), ("groups", _i32), ("column", _i32), *_OUTPUT]


class Linear(ctypes.Structure):
    """`oi8_linear`."""

    _fields_ = [
        *_HEAD,
        *_ints("columns", "reduction", "activation"),
        *_INPUT,
        *_OUTPUT,
        *_WEIGHT,
        ("output_scales", _ptr),
        ("prepared", _ptr),
    ]


class Norm(ctypes.Structure):
    """`oi8_norm`."""

    _fields_ = [
        *_HEAD,
        *_ints("columns", "kind"),
        ("epsilon", _f32),
        *_OUTPUT,
        ("weight", _ptr),
        ("bias", _ptr),
    ]


class Attention(ctypes.Structure):
    """`oi8_attention`."""

    _fields_ = [
        *_HEAD,
        *_HEADS,
        ("scaling", _f32),
        ("column", _i32 * 3),
        ("scale_column", _i32 * 3),
        ("input_scale", _f32 * 3),
        *_OUTPUT,
    ]


class FloatAttention(ctypes.Structure):
    """`oi8_float_attention`."""

    _fields_ = [*_HEAD, *_HEADS, ("bfloat16", _i32), ("scaling", _f32), ("column", _i32 * 3), *_OUTPUT]


class Embedding(ctypes.Structure):
    """`oi8_embedding`."""

    _fields_ = [
        *_HEAD,
        ("rows", _i64),
        *_ints("columns", "reserved"),
        ("weight", _ptr),
        ("weight_scale", _ptr),
    ]


class Conv(ctypes.Structure):
    """`oi8_conv`."""

    _fields_ = [
        *_HEAD,
        *_ints("columns", "reduction", "groups", "depthwise", "activation", "final_activation"),
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
        *_HEAD,
        *_ints("columns", "floats", "padding_counts"),
        *_INPUT,
        *_OUTPUT,
        ("window", ImageWindow),
    ]


class QuantizeSample(ctypes.Structure):
    """`oi8_quantize_sample`."""

    _fields_ = [*_HEAD, ("columns", _i32)]


class Add(ctypes.Structure):
    """`oi8_add`."""

    _fields_ = [
        *_HEAD,
        *_ints("columns", "output_column"),
        *_INPUT,
        ("other_scale", _f32),
        ("other_zero_point", _i32),
        *_OUTPUT,
    ]


class Recurrent(ctypes.Structure):
    """`oi8_recurrent`."""

    _fields_ = [
        *_HEAD,
        *_ints("columns", "gates", "directions", "batch", "length", "batch_first"),
        ("sizes", _ptr),
        ("starts", _ptr),
        *_WEIGHT,
        ("prepared", _ptr),
    ]


class EmbeddingBag(ctypes.Structure):
    """`oi8_embedding_bag`."""

    _fields_ = [
        *_HEAD,
        ("rows", _i64),
        *_ints("columns", "mode"),
        ("skipped", _i64),
        ("indices", _ptr),
        ("starts", _ptr),
        ("factors", _ptr),
        ("weight", _ptr),
        ("weight_scale", _ptr),
    ]


class Gated(ctypes.Structure):
    """`oi8_gated`."""

    _fields_ = [*_HEAD, ("columns", _i32), ("activation", _i32), ("column", _i32 * 2), *_OUTPUT]


class Rotary(ctypes.Structure):
    """`oi8_rotary`."""

    _fields_ = [*_HEAD, *_ints("columns", "heads", "turned", "interleaved", "column")]


class HeadNorm(ctypes.Structure):
    """`oi8_head_norm`."""

    _fields_ = [
        *_HEAD,
        *_ints("columns", "heads", "kind"),
        ("epsilon", _f32),
        *_ints("column", "reserved"),
        ("weight", _ptr),
        ("bias", _ptr),
    ]


class Append(ctypes.Structure):
    """`oi8_append`."""

    _fields_ = [*_HEAD, ("columns", _i32), ("column", _i32)]


class NativeProgram(ctypes.Structure):
    """`oi8_program`."""

    _fields_ = [
        ("instructions", ctypes.POINTER(_ptr)),
        ("values", ctypes.POINTER(Value)),
        *_ints("instruction_count", "value_count"),
        ("arena_row_bytes", _i64),
        *_ints("spatial", "reserved"),
    ]


class Call(ctypes.Structure):
    """`oi8_call`."""

    _fields_ = [
        *_ints("batch", "length"),
        ("external", ctypes.POINTER(_ptr)),
        ("mask", _ptr),
        *_ints("mask_kind", "key_length"),
        ("mask_stride", _i64 * 3),
        *_ints("skip_padding", "reserved"),
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
}
"""The struct of each operator, in the order of `enum oi8_op`."""
OPS = tuple(OPERATORS)

_STRUCTS: dict[str, type[ctypes.Structure]] = {
    "oi8_value": Value,
    "oi8_instruction": Instruction,
    "oi8_window": ImageWindow,
    "oi8_program": NativeProgram,
    "oi8_call": Call,
    **{"oi8_pool" if struct is Pool else f"oi8_{op}": struct for op, struct in OPERATORS.items()},
}


def _enumerators() -> Iterator[tuple[str, int]]:
    for kind, names in (
        ("ISA", ISAS),
        ("OP", OPS),
        ("ACTIVATION", CONV_ACTIVATIONS),
        ("NORM_KIND", ("no_norm", *NORMS[1:])),
        ("MASK", tuple(f"{'no' if name == 'none' else name}_mask" for name in MASKS)),
        ("BAG_MODE", tuple(f"bag_{name}" for name in BAG_MODES)),
        ("STATUS", STATUSES),
    ):
        yield from ((f"OI8_{name.upper()}", number) for number, name in enumerate(names))
        yield f"OI8_{kind}_COUNT", len(names)


def expected() -> dict[str, int]:
    """The constants that this package was written for, named as in the header: enumerators, sizes of structs, places of fields."""
    facts = dict(_enumerators())
    for name, struct in _STRUCTS.items():
        facts[f"sizeof {name}"] = ctypes.sizeof(struct)
        inherited = () if struct is Instruction or not hasattr(struct, "op") else [field for field, _ in _HEAD]
        for field, *_ in struct._fields_:
            if field not in inherited:
                facts[f"{name}.{field}"] = getattr(struct, field).offset
    return facts


def differences(found: dict[str, int]) -> list[str]:
    """Where the constants that a library reports are not the expected ones, a sentence each."""
    wanted = expected()
    return [
        f"{name} is {found.get(name, 'missing')}, expected {wanted.get(name, 'nothing of this name')}"
        for name in dict.fromkeys((*wanted, *found))
        if wanted.get(name) != found.get(name)
    ]
