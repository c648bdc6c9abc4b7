"""Convolutions of channels-last images, `[batch, height, width, channels]`: to float32, to uint8, to both.

`window` is a `numerics.Window` as a list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..kernels import program
from ..kernels.emission import ImageEmission, Rows, output_fields
from ..kernels.immediate import ImmediateImages
from ..kernels.packing_conv import unpack_conv
from ..numerics import Window
from .registry import IMAGES, define, native
from .roles import CONVOLUTION, Quantizing
from .shapes import image_shape, like

_INPUT = (
    "Tensor x, Tensor scale, Tensor zero_point, Tensor packed, Tensor weight_sum, Tensor weight_scale, Tensor? bias, "
)
_GEOMETRY = "int[] window, int groups, "
_RESIDUAL_QPARAMS = "Tensor? residual_scale=None, Tensor? residual_zero_point=None"
_TO_FLOATS = f"str activation='none', float slope=0.0, Tensor? residual=None, str final='none', {_RESIDUAL_QPARAMS}"
_TO_BYTES = (
    "str activation, float slope, Tensor? residual, str final, Tensor output_scale, Tensor output_zero_point, "
    f"{_RESIDUAL_QPARAMS}"
)
_VALUES = ("x", "scale", "zero_point", "residual")


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
    weight = packed, weight_sum, weight_scale, bias
    epilogue = activation, slope, residual, final, residual_scale, residual_zero_point
    if not native(x) or min(Window(*window).output_size(*x.shape[1:3])) <= 0:
        return _define_conv(x, scale, zero_point, *weight, window, groups, *epilogue)
    e = ImmediateImages(x.shape)
    inputs = e.image(x), e.scalars(scale), e.scalars(zero_point)
    added = None if residual is None else e.image(residual)
    epilogue = activation, slope, added, final, residual_scale, residual_zero_point  # type: ignore[assignment]
    return e.run_images(_emit_conv(e, *inputs, *weight, window, groups, *epilogue))


def _define_conv(  # type: ignore[no-untyped-def]
    x: Tensor, scale, zero_point, packed, weight_sum, weight_scale, bias, window, groups, *epilogue
) -> Tensor:
    moved = Window(*window)
    kernel = (moved.height, moved.width)
    weight = unpack_conv(packed, weight_scale.shape[0], x.shape[-1] // groups, groups, kernel)
    return numerics.conv(x, scale, zero_point, weight, weight_scale, bias, moved, groups, *epilogue)


def _append(
    e: ImageEmission,
    dtypes: tuple[torch.dtype, ...],
    x: Rows,
    scale: Tensor | Rows,
    zero_point: Tensor | Rows,
    packed: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    window: Sequence[int],
    groups: int,
    activation: str,
    slope: float,
    residual: Rows | None,
    final: str,
    residual_scale: Tensor | None,
    residual_zero_point: Tensor | None,
    **fields: object,
) -> tuple[Rows, ...]:
    """One instruction with a result of each dtype: float32, uint8, or both."""
    moved = Window(*window)
    e.size = moved.output_size(*x.size)
    out = {dtype: e.new(weight_scale.shape[0], dtype) for dtype in dtypes}
    inputs = [x.value, -1, -1, -1 if residual is None else residual.value]
    if isinstance(scale, Rows) and isinstance(zero_point, Rows):
        inputs[1:3] = scale.value, zero_point.value
    else:
        fields |= {"input_scale": float(scale), "input_zero_point": int(zero_point)}  # type: ignore[arg-type]
    if residual_scale is not None and residual_zero_point is not None:
        fields |= {"residual_scale": float(residual_scale), "residual_zero_point": int(residual_zero_point)}
    if bias is not None:
        fields["bias"] = bias
    fields |= {"weight": packed, "weight_sum": weight_sum, "weight_scale": weight_scale}
    fields |= {"columns": weight_scale.shape[0], "reduction": moved.taps * (x.columns // groups), "groups": groups}
    fields |= {"activation": activation, "final_activation": final, "slope": slope}
    fields |= {"window": program.window(moved, *x.size), "depthwise": int(packed.dtype == torch.float32)}
    outputs = [out[dtype].value if dtype in out else -1 for dtype in (torch.float32, torch.uint8)]
    e.program.add("conv", inputs, outputs, **fields)
    return tuple(out.values())


def _emit_conv(  # type: ignore[no-untyped-def]
    e: ImageEmission,
    x: Rows,
    scale,
    zero_point,
    packed,
    weight_sum,
    weight_scale,
    bias,
    window,
    groups,
    activation="none",
    slope=0.0,
    residual=None,
    final="none",
    residual_scale=None,
    residual_zero_point=None,
) -> Rows:
    weight = packed, weight_sum, weight_scale, bias, window, groups
    epilogue = activation, slope, residual, final, residual_scale, residual_zero_point
    return _append(e, (torch.float32,), x, scale, zero_point, *weight, *epilogue)[0]


def _fake_conv(x: Tensor, scale, zero_point, packed, weight_sum, weight_scale, bias, window, *rest, **named) -> Tensor:  # type: ignore[no-untyped-def]
    return like(x, *image_shape(x, window, weight_scale.shape[0]))


define(
    "conv",
    f"({_INPUT}{_GEOMETRY}{_TO_FLOATS}) -> Tensor",
    compute=conv,
    definition=_define_conv,
    fake=_fake_conv,
    emit=_emit_conv,
    domains=(IMAGES,),
    values=_VALUES,
    role=CONVOLUTION,
)


def _convolve_both(  # type: ignore[no-untyped-def]
    convolve: Callable[..., Tensor],
    x: Tensor,
    scale,
    zero_point,
    packed,
    weight_sum,
    weight_scale,
    bias,
    window,
    groups,
    activation,
    slope,
    residual,
    final,
    output_scale,
    output_zero_point,
    residual_scale=None,
    residual_zero_point=None,
) -> tuple[Tensor, Tensor]:
    """What `convolve` (`conv`, or its definition) gives, and the same quantized."""
    weight = packed, weight_sum, weight_scale, bias, window, groups
    epilogue = activation, slope, residual, final, residual_scale, residual_zero_point
    y = convolve(x, scale, zero_point, *weight, *epilogue)
    return y, numerics.quantize_affine(y, output_scale, output_zero_point)


def conv_both(*conv_arguments: Any) -> tuple[Tensor, Tensor]:
    """`conv`, and its result also quantized with `output_scale` and `output_zero_point`."""
    return _convolve_both(conv, *conv_arguments)


def _define_conv_both(*conv_arguments: Any) -> tuple[Tensor, Tensor]:
    return _convolve_both(_define_conv, *conv_arguments)


def _emit_to_bytes(  # type: ignore[no-untyped-def]
    dtypes: tuple[torch.dtype, ...],
    e: ImageEmission,
    x: Rows,
    scale,
    zero_point,
    *,
    output_scale,
    output_zero_point,
    **named,
) -> Any:
    fields = output_fields(output_scale, output_zero_point)
    made = _append(e, dtypes, x, scale, zero_point, **named, **fields)
    return made[0] if len(made) == 1 else made


def _emit_conv_both(e: ImageEmission, x: Rows, scale, zero_point, **named) -> tuple[Rows, Rows]:  # type: ignore[no-untyped-def]
    return _emit_to_bytes((torch.float32, torch.uint8), e, x, scale, zero_point, **named)


def _fake_conv_both(  # type: ignore[no-untyped-def]
    x: Tensor, scale, zero_point, packed, weight_sum, weight_scale, bias, window, *rest, **named
) -> tuple[Tensor, Tensor]:
    shape = image_shape(x, window, weight_scale.shape[0])
    return like(x, *shape), like(x, *shape, dtype=torch.uint8)


define(
    "conv_both",
    f"({_INPUT}{_GEOMETRY}{_TO_BYTES}) -> (Tensor, Tensor)",
    compute=conv_both,
    definition=_define_conv_both,
    fake=_fake_conv_both,
    emit=_emit_conv_both,
    domains=(IMAGES,),
    values=_VALUES,
    form=Quantizing("conv", keeps_float=True),
)


def conv_quantized(*conv_arguments: Any) -> Tensor:
    """`conv`, then `quantize` with `output_scale` and `output_zero_point`."""
    return conv_both(*conv_arguments)[1]


def _emit_conv_quantized(e: ImageEmission, x: Rows, scale, zero_point, **named) -> Rows:  # type: ignore[no-untyped-def]
    return _emit_to_bytes((torch.uint8,), e, x, scale, zero_point, **named)


define(
    "conv_quantized",
    f"({_INPUT}{_GEOMETRY}{_TO_BYTES}) -> Tensor",
    compute=conv_quantized,
    definition=lambda *conv_arguments: _define_conv_both(*conv_arguments)[1],
    fake=lambda *conv_arguments, **named: _fake_conv_both(*conv_arguments, **named)[1],
    emit=_emit_conv_quantized,
    domains=(IMAGES,),
    values=_VALUES,
    form=Quantizing("conv"),
)
