"""What fine-grained FX rewrites: one pass per file, the order in `pipeline`."""

from .account import Part
from .blocks import find_blocks, install, remove
from .pipeline import LOWERING, PASSES, REWRITES, Pass, compile_graph, run_passes
from .report import BlockRow, InspectReport, inspect

__all__ = [
    "LOWERING",
    "PASSES",
    "REWRITES",
    "BlockRow",
    "InspectReport",
    "Part",
    "Pass",
    "compile_graph",
    "find_blocks",
    "inspect",
    "install",
    "remove",
    "run_passes",
]
