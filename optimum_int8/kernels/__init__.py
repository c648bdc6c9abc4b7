"""The arithmetic of `numerics`, fast: a native library (csrc/), and its programs. See `operators` for what it computes."""

from .changed import bytes_changed
from .immediate import as_rows, empty_rows
from .interface import ACTIVATIONS
from .native import ISA_VARIABLE, ISAS, current_isa, info, library, use_isa
from .packing import PANEL, STEP, pack, row_sums, unpack
from .packing_conv import is_depthwise, pack_conv, unpack_conv
from .packing_recurrent import by_blocks, from_blocks
from .prepared import forget_prepared
from .program import Program

__all__ = [
    "ACTIVATIONS",
    "ISAS",
    "ISA_VARIABLE",
    "PANEL",
    "STEP",
    "Program",
    "as_rows",
    "by_blocks",
    "bytes_changed",
    "current_isa",
    "empty_rows",
    "forget_prepared",
    "from_blocks",
    "info",
    "is_depthwise",
    "library",
    "pack",
    "pack_conv",
    "row_sums",
    "unpack",
    "unpack_conv",
    "use_isa",
]
