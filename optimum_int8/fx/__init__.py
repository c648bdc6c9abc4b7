"""Fine-grained FX, the mechanism: finding, capturing, guarding and lowering blocks. What to rewrite is decided in `passes`."""

from .arguments import NotCapturable
from .block import Block, Compiler, agree
from .capture import Captured, capture
from .lower import lower
from .lower_images import lower_images
from .program_call import ProgramCall, runs_natively
from .structure import candidates, holds_int8, structure_key

__all__ = [
    "Block",
    "Captured",
    "Compiler",
    "NotCapturable",
    "ProgramCall",
    "agree",
    "candidates",
    "capture",
    "holds_int8",
    "lower",
    "lower_images",
    "runs_natively",
    "structure_key",
]
