"""The operators on images, `torch.ops.optimum_int8.*` like those of `ops`. Images are channels-last: `[batch, height, width, channels]`.

`window` is a `numerics_conv.Window` as a list. Of the operators on convolutions, models call `conv`, and fine-grained FX the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .. import numerics, numerics_conv
from ..numerics_conv import Window
from . import ops
from .packing_conv import unpack_conv

_CONV = (
    "Tensor x, Tensor scale, Tensor zero_point, Tensor packed, Tensor weight_sum, Tensor weight_scale, Tensor? bias, "
    "int[] window, int groups, "
)
_EPILOGUE = "str activation='none', float slope=0.0, Tensor? residual=None, str final='none'"
_EPILOGUE_TO_BYTES = (
    "str activation, float slope, Tensor? residual, str final, Tensor output_scale, Tensor output_zero_point"
)
SCHEMAS = {
    "quantize_samples": "(Tensor x) -> (Tensor, Tensor, Tensor)",
    "conv": f"({_CONV}{_EPILOGUE}) -> Tensor",
    "conv_quantized": f"({_CONV}{_EPILOGUE_TO_BYTES}) -> Tensor",
    "conv_both": f"({_CONV}{_EPILOGUE_TO_BYTES}) -> (Tensor, Tensor)",
    "max_pool": "(Tensor x, int[] window) -> Tensor",
    "avg_pool": "(Tensor x, Tensor scale, Tensor zero_point, int[] window) -> Tensor",
}

for _name, _schema in SCHEMAS.items():
    ops._definitions.define(_name + _schema)
ops.SCHEMAS.update(SCHEMAS)


def quantize_samples(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float `[batch, ...]` to uint8 with a scale and a zero point per sample; see `numerics_conv.quantize_samples`."""
    return numerics_conv.quantize_samples(x)


def conv(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    packed: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    window: Sequence[int],
    groups: int,
    activation: str = "none",
    slope: float = 0.0,
    residual: Tensor | None = None,
    final: str = "none",
) -> Tensor:
    """uint8 `[batch, height, width, in]` by a packed weight to float32 `[batch, height', width', out]`; see `numerics_conv.conv`."""
    w = Window(*window)
    weight = unpack_conv(packed, weight_scale.shape[0], x.shape[-1] // groups, groups, (w.height, w.width))
    grid = scale, zero_point
    return numerics_conv.conv(x, *grid, weight, weight_scale, bias, w, groups, activation, slope, residual, final)


def conv_quantized(*args: object) -> Tensor:
    """`conv`, then `quantize` on the grid of the last two arguments."""
    *core, scale, zero_point = args
    return numerics.quantize_affine(conv(*core), scale, zero_point)  # type: ignore[arg-type]


def conv_both(*args: object) -> tuple[Tensor, Tensor]:
    """`conv`, and its result also quantized on the grid of the last two arguments."""
    *core, scale, zero_point = args
    y = conv(*core)  # type: ignore[arg-type]
    return y, numerics.quantize_affine(y, scale, zero_point)  # type: ignore[arg-type]


def max_pool(x: Tensor, window: Sequence[int]) -> Tensor:
    """uint8 `[batch, height, width, channels]` to the largest of each window; see `numerics_conv.max_pool`."""
    return numerics_conv.max_pool(x, Window(*window))


def avg_pool(x: Tensor, scale: Tensor, zero_point: Tensor, window: Sequence[int]) -> Tensor:
    """uint8 `[batch, height, width, channels]` to the mean of each window, float32; see `numerics_conv.avg_pool`."""
    return numerics_conv.avg_pool(x, scale, zero_point, Window(*window))


for _name in SCHEMAS:
    ops._definitions.impl(_name, globals()[_name], "CPU")
