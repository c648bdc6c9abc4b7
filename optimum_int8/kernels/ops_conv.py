"""The operators on images, `torch.ops.optimum_int8.*` like those of `ops`. Images are channels-last: `[batch, height, width, channels]`.

`window` is a `numerics.Window` as a list. Of the operators on convolutions, models call `conv`, and fine-grained FX the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import numerics
from ..numerics import Window, averaged_window
from . import emit_conv, ops
from .immediate import ImmediateImages
from .packing_conv import unpack_conv

_CONV = (
    "Tensor x, Tensor scale, Tensor zero_point, Tensor packed, Tensor weight_sum, Tensor weight_scale, Tensor? bias, "
    "int[] window, int groups, "
)
_RESIDUAL_GRID = "Tensor? residual_scale=None, Tensor? residual_zero_point=None"
_EPILOGUE = f"str activation='none', float slope=0.0, Tensor? residual=None, str final='none', {_RESIDUAL_GRID}"
_EPILOGUE_TO_BYTES = (
    "str activation, float slope, Tensor? residual, str final, Tensor output_scale, Tensor output_zero_point, "
    f"{_RESIDUAL_GRID}"
)
SCHEMAS = {
    "quantize_samples": "(Tensor x) -> (Tensor, Tensor, Tensor)",
    "conv": f"({_CONV}{_EPILOGUE}) -> Tensor",
    "conv_quantized": f"({_CONV}{_EPILOGUE_TO_BYTES}) -> Tensor",
    "conv_both": f"({_CONV}{_EPILOGUE_TO_BYTES}) -> (Tensor, Tensor)",
    "max_pool": "(Tensor x, int[] window) -> Tensor",
    "avg_pool": "(Tensor x, Tensor? scale, Tensor? zero_point, int[]? window=None, bool padding_counts=False) -> Tensor",
    "avg_pool_quantized": (
        "(Tensor x, Tensor? scale, Tensor? zero_point, int[]? window, bool padding_counts, Tensor output_scale, "
        "Tensor output_zero_point) -> Tensor"
    ),
}

for _name, _schema in SCHEMAS.items():
    ops._definitions.define(_name + _schema)
ops.SCHEMAS.update(SCHEMAS)


def quantize_samples(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float `[batch, ..., channels]` to uint8 with a scale and a zero point per sample; see `numerics.quantize_samples`."""
    if not ops._native(x) or x.dim() != 4:
        return numerics.quantize_samples(x)
    e = ImmediateImages(x.shape)
    q, scale, zero_point = e.run_images(emit_conv.quantize_samples(e, e.image(x.to(torch.float32))))
    return q, scale.flatten(), zero_point.flatten()


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
    residual_scale: Tensor | None = None,
    residual_zero_point: Tensor | None = None,
) -> Tensor:
    """uint8 `[batch, height, width, in]` by a packed weight to float32 `[batch, height', width', out]`; see `numerics.conv`."""
    weight, geometry, epilogue = (packed, weight_sum, weight_scale, bias), (window, groups), (activation, slope, final)
    grid = residual_scale, residual_zero_point
    if not _native_image(x, window):
        return _reference(x, scale, zero_point, weight, geometry, epilogue, (residual, *grid))
    e = ImmediateImages(x.shape)
    inputs = e.image(x), e.scalars(scale), e.scalars(zero_point)
    added = None if residual is None else e.image(residual)
    return e.run_images(emit_conv.conv(e, *inputs, *weight, *geometry, activation, slope, added, final, *grid))


def _native_image(x: Tensor, window: Sequence[int]) -> bool:
    return ops._native(x) and min(Window(*window).output_size(*x.shape[1:3])) > 0


def _reference(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    weight: tuple[Tensor, Tensor, Tensor, Tensor | None],
    geometry: tuple[Sequence[int], int],
    epilogue: tuple[str, float, str],
    added: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> Tensor:
    packed, _, weight_scale, bias = weight
    window, groups, (activation, slope, final) = Window(*geometry[0]), geometry[1], epilogue
    int8 = unpack_conv(packed, weight_scale.shape[0], x.shape[-1] // groups, groups, (window.height, window.width))
    more = activation, slope, added[0], final, *added[1:]
    return numerics.conv(x, scale, zero_point, int8, weight_scale, bias, window, groups, *more)


_OUTPUT_GRID = slice(13, 15)
"""Where that of `conv_quantized` and `conv_both` stands among the arguments; the residual's comes after it."""


def conv_quantized(*args: object) -> Tensor:
    """`conv`, then `quantize` on the grid `output_scale`, `output_zero_point`."""
    return conv_both(*args)[1]


def conv_both(*args: object) -> tuple[Tensor, Tensor]:
    """`conv`, and its result also quantized on the grid `output_scale`, `output_zero_point`."""
    y = conv(*args[: _OUTPUT_GRID.start], *args[_OUTPUT_GRID.stop :])  # type: ignore[arg-type]
    return y, numerics.quantize_affine(y, *args[_OUTPUT_GRID])  # type: ignore[arg-type]


def max_pool(x: Tensor, window: Sequence[int]) -> Tensor:
    """uint8 or float32 `[batch, height, width, channels]` to the largest of each window; see `numerics.max_pool`."""
    if not _native_image(x, window):
        return numerics.max_pool(x, Window(*window))
    e = ImmediateImages(x.shape)
    x = x.to(torch.float32) if x.is_floating_point() else x
    return e.run_images(emit_conv.max_pool(e, e.image(x), window))


def avg_pool(
    x: Tensor,
    scale: Tensor | None,
    zero_point: Tensor | None,
    window: Sequence[int] | None = None,
    padding_counts: bool = False,
) -> Tensor:
    """uint8 on a grid, or float32, `[batch, height, width, channels]` to the mean of each window (None: the whole image), float32; see
    `numerics.avg_pool`."""
    if not _native_image(x, averaged_window(window, *x.shape[1:3])):
        return numerics.avg_pool(x, scale, zero_point, window, padding_counts)
    e = ImmediateImages(x.shape)
    image = e.image(x.to(torch.float32) if scale is None else x)
    return e.run_images(emit_conv.avg_pool(e, image, scale, zero_point, window, padding_counts))


def avg_pool_quantized(*args: object) -> Tensor:
    """`avg_pool`, then `quantize` on the grid of the last two arguments."""
    *core, scale, zero_point = args
    return numerics.quantize_affine(avg_pool(*core), scale, zero_point)  # type: ignore[arg-type]


for _name in SCHEMAS:
    ops._definitions.impl(_name, globals()[_name], "CPU")
