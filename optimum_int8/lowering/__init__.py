"""Lowering: from a graph of operators to native programs. One segmenter and one emitter, for rows and for images."""

from .images import lower_images
from .program_call import ProgramCall, computing_padding, program_tensors, runs_natively, whole_program
from .rows import lower_rows
from .step import whole_step
from .steps_on_cache import StepsOnCache
from .template import Template

__all__ = [
    "StepsOnCache",
    "ProgramCall",
    "Template",
    "computing_padding",
    "lower_images",
    "lower_rows",
    "program_tensors",
    "runs_natively",
    "whole_program",
    "whole_step",
]
