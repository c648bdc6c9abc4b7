"""The fake-quantized counterpart of each INT8 module, for training: the same values in float, with gradients."""

from .attention import FAKE_CHILD, FAKE_IMPLEMENTATION, FakeQuantizedAttention
from .conv import FakeQuantizedConv1d, FakeQuantizedConv2d, fake_quantize_conv, unfake_conv
from .embedding import FakeQuantizedEmbedding, fake_quantize_embedding, unfake_embedding
from .linear import FakeQuantizedConv1D, FakeQuantizedLinear, fake_quantize_linear, unfake_linear
from .pool import FakeQuantizedAvgPool, fake_quantize_pool, unfake_pool
from .quantize import FakeQuantize, fake_quantize_weight

__all__ = [
    "FAKE_CHILD",
    "FAKE_IMPLEMENTATION",
    "FakeQuantize",
    "FakeQuantizedAttention",
    "FakeQuantizedAvgPool",
    "FakeQuantizedConv1D",
    "FakeQuantizedConv1d",
    "FakeQuantizedConv2d",
    "FakeQuantizedEmbedding",
    "FakeQuantizedLinear",
    "fake_quantize_conv",
    "fake_quantize_embedding",
    "fake_quantize_linear",
    "fake_quantize_pool",
    "fake_quantize_weight",
    "unfake_conv",
    "unfake_embedding",
    "unfake_linear",
    "unfake_pool",
]
