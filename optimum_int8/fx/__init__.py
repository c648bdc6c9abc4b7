"""Fine-grained FX, the mechanism: finding, capturing and guarding blocks. What to rewrite is decided in `passes`, what runs them in `lowering`."""

from .agree import ROUNDED, ROUNDING, agree, rounding_tolerance
from .arguments import NotCapturable, flatten, rebuild, rebuild_output
from .block import Block, stand_ins
from .capture import Captured, capture, other_shapes
from .compiler import Compiler
from .program_call import ProgramCall, runs_natively
from .quiet import quiet
from .shapes import shaped
from .structure import candidates, holds_int8, structure_key

__all__ = [
    "ROUNDED",
    "ROUNDING",
    "Block",
    "Captured",
    "Compiler",
    "NotCapturable",
    "ProgramCall",
    "agree",
    "candidates",
    "capture",
    "flatten",
    "holds_int8",
    "other_shapes",
    "quiet",
    "rebuild",
    "rebuild_output",
    "rounding_tolerance",
    "runs_natively",
    "shaped",
    "stand_ins",
    "structure_key",
]
