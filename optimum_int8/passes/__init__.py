"""What fine-grained FX rewrites: one pass per file, the order in `pipeline`."""

from .install import BlockRow, InspectReport, find_blocks, inspect, install, remove
from .pipeline import PASSES, Pass, compile_graph

__all__ = [
    "PASSES",
    "BlockRow",
    "InspectReport",
    "Pass",
    "compile_graph",
    "find_blocks",
    "inspect",
    "install",
    "remove",
]
