"""Lowering: from a graph of operators to native programs. One segmenter and one emitter, for rows and for images."""

from .images import lower_images
from .rows import lower_rows

__all__ = ["lower_images", "lower_rows"]
