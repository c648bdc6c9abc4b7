"""The KV cache of INT8 decoders."""

from .generate import make_int8_caches, make_own_caches
from .int8_cache import Int8Cache, Int8Layer
from .rows import Form, Int8Rows

__all__ = ["Form", "Int8Cache", "Int8Layer", "Int8Rows", "make_int8_caches", "make_own_caches"]
