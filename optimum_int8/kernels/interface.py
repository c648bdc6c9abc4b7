"""The C interface of the native library, repeated: `csrc/optimum_int8.h` documents every name and field.

What the library itself reports is compared with this when it is loaded (`differences`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from ..numerics import CONV_ACTIVATIONS
from .structs import (
    HEAD,
    Add,
    Append,
    Attention,
    Conv,
    Embedding,
    EmbeddingBag,
    FloatAttention,
    Gated,
    HeadNorm,
    ImageWindow,
    Instruction,
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

ABI = 15
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

    _fields_ = [("mask", _ptr), *ints("mask_kind", "length"), ("mask_stride", _i64 * 3)]


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
}
"""The struct of each operator, in the order of `enum oi8_op`."""
OPS = tuple(OPERATORS)

_STRUCTS: dict[str, type[ctypes.Structure]] = {
    "oi8_value": Value,
    "oi8_instruction": Instruction,
    "oi8_window": ImageWindow,
    "oi8_program": NativeProgram,
    "oi8_keys": Keys,
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
    facts = {**dict(_enumerators()), "OI8_KEYS": KEYS}
    for name, struct in _STRUCTS.items():
        facts[f"sizeof {name}"] = ctypes.sizeof(struct)
        inherited = () if struct is Instruction or not hasattr(struct, "op") else [field for field, _ in HEAD]
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
