"""Attention modules of torch and of families of Transformers, taken apart so that their projections, products and core can be INT8."""

from .multihead import PROJECTIONS, UnpackedMultiheadAttention, unpack_attention, unpacking_obstacle
from .relative import can_unpack, unpack_relative, unpacked

__all__ = [
    "PROJECTIONS",
    "UnpackedMultiheadAttention",
    "can_unpack",
    "unpack_attention",
    "unpack_relative",
    "unpacked",
    "unpacking_obstacle",
]
