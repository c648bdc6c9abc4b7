"""Fake quantization: float values rounded as INT8 inference rounds them, with gradients that pass through the rounding.

Bengio et al. 2013 (arXiv:1308.3432) for the straight-through estimator, Jacob et al. 2018 (arXiv:1712.05877) for training with it,
Esser et al. 2020 (arXiv:1902.08153, "LSQ") for the gradient of a step size, Jain et al. 2020 (arXiv:1903.08066, "TQT") for learning
its logarithm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ... import numerics
from ..base import KeepDtype
from ..tokens import mask_for


class FakeQuantize(KeepDtype):
    """Rounds one activation tensor to its static scale and zero point, as `numerics.quantize_affine` and back, to the bit.

    Stored: `scale` float32 `[]`, `zero_point` int32 `[]`, and what moves them: `minimum` and `maximum`, float32 `[]`, the moving
    averages of each step's extremes; or, when `learnable`, the parameter `log_gain`, float32 `[]`, by whose exponential `scale` is
    multiplied. The zero point of a learnable range stays, so that 0.0 stays exact.

    Args:
        range: `(minimum, maximum)` to start from.
        symmetric: of queries, keys and values: zero point 0, as INT8 keeps them around 128.
        bits: there are `2**bits` levels.
        learnable: train the scale instead of following the extremes.

    Attributes:
        observing: record the extremes of the values in training, for the next `update`.
    """

    scale: Tensor
    zero_point: Tensor
    minimum: Tensor
    maximum: Tensor
    log_gain: nn.Parameter | None

    def __init__(
        self, range: tuple[float, float], symmetric: bool = False, bits: int = 8, learnable: bool = False
    ) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.bits = bits
        self.learnable = learnable
        self.observing = not learnable
        self._seen: tuple[Tensor, Tensor] | None = None
        self.register_buffer("minimum", None if learnable else torch.tensor(float(range[0])))
        self.register_buffer("maximum", None if learnable else torch.tensor(float(range[1])))
        scale, zero_point = self._choose_qparams(*(torch.tensor(float(end)) for end in range))
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)
        self.log_gain = nn.Parameter(torch.zeros(())) if learnable else None

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest quantized value."""
        if not self.symmetric:
            return numerics.QMIN, numerics.affine_max(self.bits)
        if self.bits == 8:  # the kernels keep these as uint8 around 128, which leaves one value more below
            return numerics.QMIN - numerics.SYMMETRIC_ZERO_POINT, numerics.QMAX - numerics.SYMMETRIC_ZERO_POINT
        top = numerics.affine_max(self.bits) // 2
        return -top, top

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Any shape; the result has x's dtype, the arithmetic is float32.

        Args:
            rows: the values of x as `[batch, length, ...]` for the observation, where x has another order of axes.
        """
        if self.observing and self.training:
            self.observe(x if rows is None else rows)
        if self.log_gain is not None:
            return _LearnedStep.apply(x.float(), self.current_scale(), self.zero_point, *self.limits).to(x.dtype)
        return torch.fake_quantize_per_tensor_affine(x.float(), self.scale, self.zero_point, *self.limits).to(x.dtype)

    def current_scale(self) -> Tensor:
        """The scale in use, float32 `[]`; differentiable when it is learnt."""
        return self.scale if self.log_gain is None else self.scale * self.log_gain.exp()

    def observe(self, x: Tensor) -> None:
        """Record the extremes of `x` with those recorded since the last `take_seen`, padding aside. Recording the same values twice, as
        gradient checkpointing does, changes nothing."""
        mask = mask_for(x.shape[:-1])
        values = x.detach().float()
        values = values if mask is None else values[mask]
        if not values.numel():
            return
        low, high = torch.aminmax(values)
        if self._seen is not None:
            low = torch.minimum(low, self._seen[0])
            high = torch.maximum(high, self._seen[1])
        self._seen = (low, high)

    def take_seen(self) -> tuple[Tensor, Tensor] | None:
        """What `observe` recorded since the last call, `(minimum, maximum)`, or None."""
        seen = self._seen
        self._seen = None
        return seen

    def update(self, minimum: Tensor, maximum: Tensor, averaging_constant: float) -> None:
        """Move the range towards a step's extremes, as `MovingAverageObserver` does; extremes that are not finite are left out."""
        if not bool(torch.isfinite(minimum) & torch.isfinite(maximum)):
            return
        self.minimum += averaging_constant * (minimum.clamp(max=0.0) - self.minimum)
        self.maximum += averaging_constant * (maximum.clamp(min=0.0) - self.maximum)
        scale, zero_point = self._choose_qparams(self.minimum, self.maximum)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def _choose_qparams(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor]:
        if not self.symmetric:
            return numerics.affine_qparams(minimum, maximum, self.bits)
        absmax = torch.maximum(minimum.abs(), maximum.abs())
        return numerics.symmetric_scale(absmax, self.bits), torch.zeros_like(absmax, dtype=torch.int32)

    def extra_repr(self) -> str:
        """What `print` shows."""
        kind = "learnable" if self.learnable else "moving average"
        return f"{self.bits} bits, {'symmetric' if self.symmetric else 'affine'}, {kind}"


def fake_quantize_weight(weight: Tensor, per_channel: bool = True) -> Tensor:
    """A `[rows, columns]` weight rounded as `numerics.quantize_weight` does, to the bit; the gradient passes unchanged."""
    wide = weight.float()
    scale = numerics.choose_weight_scale(wide, per_channel)
    zero_point = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
    limits = (-numerics.SIGNED_MAX, numerics.SIGNED_MAX)
    if per_channel:
        return torch.fake_quantize_per_channel_affine(wide, scale, zero_point, 0, *limits).to(weight.dtype)
    return torch.fake_quantize_per_tensor_affine(wide, scale[0], zero_point[0], *limits).to(weight.dtype)


class _LearnedStep(torch.autograd.Function):
    """Fake quantization with a gradient for the scale, which is that of `clamp(round(x / scale))` held fixed plus that of the
    unclipped `x / scale` passed through: `(x_hat - x) / scale` inside the range and the clipped value outside (LSQ, equation 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        y = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)
        ctx.save_for_backward(x, y, scale)
        ctx.limits = ((low - zero_point) * scale, (high - zero_point) * scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, scale = ctx.saved_tensors
        low, high = ctx.limits
        inside = (x >= low - scale / 2) & (x <= high + scale / 2)
        passed = gradient * inside
        step = (gradient.flatten().dot(y.flatten()) - passed.flatten().dot(x.flatten())) / scale
        return passed, step, None, None, None
