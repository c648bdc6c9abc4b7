"""What fine-grained FX rewrites: one pass per file, the order in `pipeline`."""

from .install import BlockRow, InspectReport, find_blocks, inspect, install, remove
from .pipeline import LOWERING, PASSES, REWRITES, Pass, compile_graph, run_passes

__all__ = [
    "LOWERING",
    "PASSES",
    "REWRITES",
    "BlockRow",
    "InspectReport",
    "Pass",
    "compile_graph",
    "find_blocks",
    "inspect",
    "install",
    "remove",
    "run_passes",
]
