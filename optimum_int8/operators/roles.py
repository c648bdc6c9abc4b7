"""What passes ask of an operator instead of its name: its role, what its scales belong to, and the operator that it is a form of."""

from __future__ import annotations

from dataclasses import dataclass

QUANTIZATION = "quantization"
"""float `x` to uint8. By `PER_TENSOR` with the arguments `scale` and `zero_point`; otherwise both are results too, after the uint8."""

DEQUANTIZATION = "dequantization"
"""uint8 `q` to float32, with the arguments `scale` and `zero_point`."""

LINEAR = "linear"
"""uint8 rows `x`, with `scale` and `zero_point`, by a matrix (`panels`, `weight_sum`, `weight_scale`, `bias`) to float32: a column of the
result depends on its own row of the matrix alone. `activation` comes after it. It has a `Quantizing` form, which also takes a
scale per column."""

CONVOLUTION = "convolution"
"""uint8 images `x` by a packed kernel to float32: `activation`, with its `slope`, then `residual`, then the activation `final`."""

POOLING = "pooling"
"""Images `x`: one value of each window and channel, so that a quantization of the result may be done by the operator."""

PER_TENSOR = "tensor"
PER_ROW = "row"
PER_GROUP = "group"
PER_SAMPLE = "sample"
"""What a scale and a zero point belong to: a tensor, a row, a group of columns (a head) in a row, an image."""


@dataclass(frozen=True)
class Quantizing:
    """Form of another operator that quantizes the result too. It has that operator's arguments, and `PER_TENSOR` two more: scale and
    zero point, in this order.

    Attributes:
        of: name of the other operator.
        per: what a scale belongs to.
        keeps_float: whether the float32 result comes first; the uint8 result stands alone otherwise.
    """

    of: str
    per: str = PER_TENSOR
    keeps_float: bool = False


@dataclass(frozen=True)
class OnRows:
    """Form of an attention core that takes `query`, `key` and `value` as heads `[batch, heads, length, head]`: it takes them as rows
    `[batch, length, heads * head]`, named `q`, `k` and `v`, with `heads` and `kv_heads`.

    Attributes:
        of: name of the core on heads.
    """

    of: str


@dataclass(frozen=True)
class Appending:
    """Form of an attention core on rows that appends the tokens' keys and values to those of a cache first: it also takes `past_k` and
    `past_v`, and gives the keys and values there are then after its result.

    Attributes:
        of: name of the core.
    """

    of: str


Form = Quantizing | OnRows | Appending
