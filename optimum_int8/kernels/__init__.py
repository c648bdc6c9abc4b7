"""The arithmetic of `numerics`, fast: a native library (csrc/), its programs, and the operators in `torch.ops.optimum_int8`."""

from . import (
    emit,
    emit_float,
    fake,
    fake_conv,
    fake_sum,
    ops_conv,
    ops_float,
    ops_matmul,
    ops_scores,
    ops_sum,
)
from .changed import bytes_changed
from .immediate import as_rows, empty_rows
from .library import ISA_VARIABLE, ISAS, current_isa, info, library, use_isa
from .ops import attention, embedding, linear, quantize, quantize_rows
from .ops_float import float_attention
from .packing import PANEL, STEP, pack, row_sums, unpack
from .packing_conv import is_depthwise, pack_conv, unpack_conv
from .program import ACTIVATIONS, Program

__all__ = [
    "ACTIVATIONS",
    "ISAS",
    "ISA_VARIABLE",
    "PANEL",
    "STEP",
    "Program",
    "as_rows",
    "attention",
    "bytes_changed",
    "current_isa",
    "embedding",
    "emit",
    "emit_float",
    "empty_rows",
    "fake",
    "fake_conv",
    "fake_sum",
    "float_attention",
    "info",
    "is_depthwise",
    "library",
    "linear",
    "ops_conv",
    "ops_float",
    "ops_matmul",
    "ops_scores",
    "ops_sum",
    "pack",
    "pack_conv",
    "quantize",
    "quantize_rows",
    "row_sums",
    "unpack",
    "unpack_conv",
    "use_isa",
]
