"""Fine-grained FX, the mechanism: finding, capturing and guarding blocks. What to rewrite is decided in `passes`, what runs them in `lowering`."""

from .agreement import ROUNDED, ROUNDING, agree, rounding_tolerance
from .arguments import NotCapturable, flatten, rebuild, rebuild_output
from .block import Block, install_below, stand_ins
from .captured import Captured, capture, other_shapes
from .compiler import Backend, Compiler, compilers
from .shapes import shaped
from .silence import quiet
from .structure import candidates, holds_int8, structure_key

__all__ = [
    "ROUNDED",
    "ROUNDING",
    "Backend",
    "Block",
    "Captured",
    "Compiler",
    "NotCapturable",
    "agree",
    "candidates",
    "capture",
    "compilers",
    "flatten",
    "holds_int8",
    "install_below",
    "other_shapes",
    "quiet",
    "rebuild",
    "rebuild_output",
    "rounding_tolerance",
    "shaped",
    "stand_ins",
    "structure_key",
]
