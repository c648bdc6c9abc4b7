"""Elementary functions as polynomials whose steps every kernel repeats, and the activations built from them."""

from __future__ import annotations

import torch
from torch import Tensor

LOG2E = 1.44269502

# Minimax fits on [-1/2, 1/2] of 2**f - 1 without constant term, and of 255 * 2**f with its own.
_EXP2 = (0.693147004, 0.240222424, 0.0555073358, 0.00967151299, 0.00132647273)

_POWER_255 = (255.0, 176.78714, 61.7637978, 14.0273094)

# See `_gate`: where p reaches 1/2 to the bit, intervals per unit of x, and of each interval the coefficients by rising powers.
_GELU = (4.5, 1.77777553, (
    (-9.86380692e-05, -0.0103293518, -0.0594866015, -0.0652444661, 0.0822097287, 0.293836296, 0.432706058, 0.499011159),
    (0.400514215, 0.448625594, 0.580648184, 0.597146571, 0.402951598, 0.175668851, 0.050548669, 0.000395128969),
    (-0.00745750545, -0.0843864828, -0.203702644, -0.217265114, -0.131824374, -0.0503295735, -0.012713681, -3.89742963e-05),
    (-0.054624375, -0.0125576174, 0.0237145983, 0.0271580853, 0.014598907, 0.00484347856, 0.00107016065, 0.0),
))  # fmt: skip

_GELU_TANH = (4.44000006, 1.80179954, (
    (-9.43578634e-05, -0.00986945257, -0.0569149181, -0.0664294139, 0.0660012215, 0.275070429, 0.426487207, 0.498426199),
    (0.400466323, 0.447061926, 0.575065196, 0.597987354, 0.421557605, 0.194391087, 0.0562750474, 0.000699681288),
    (-0.00732791051, -0.0828502774, -0.200050429, -0.217379466, -0.138859034, -0.0564507581, -0.014412594, -7.77522073e-05),
    (-0.0550023019, -0.0131406756, 0.0229567252, 0.0271592028, 0.0154844262, 0.00550379138, 0.00123448088, 0.0),
))  # fmt: skip


def exp(x: Tensor) -> Tensor:
    """e**x to 1e-6 relative for |x| <= 20 (the rounding of `x * log2 e`): 2**n by the exponent bits, 2**f by a degree-5 polynomial; arguments outside +-87 saturate."""
    t = (x * LOG2E).clamp(-125.0, 126.0)
    n = torch.round(t)
    f = t - n
    p = f * _EXP2[4] + _EXP2[3]
    for coefficient in (_EXP2[2], _EXP2[1], _EXP2[0], 1.0):
        p = p * f + coefficient
    return _scale_exponent(p, n)


def softmax_weight(t: Tensor) -> Tensor:
    """`255 * 2**t` for t <= 0, to 1.1e-4 relative; below -125 as there. A cubic polynomial suffices, as its result becomes bytes: 0.03 of a level."""
    power = torch.where(t > -125.0, t, -125.0)
    n = torch.round(power)
    f = power - n
    p = f * _POWER_255[3] + _POWER_255[2]
    for coefficient in _POWER_255[1::-1]:
        p = p * f + coefficient
    return _scale_exponent(p, n)


def _scale_exponent(x: Tensor, n: Tensor) -> Tensor:
    """`x * 2**n`, of a whole n and a normal result."""
    return (x.view(torch.int32) + (n.to(torch.int32) << 23)).view(torch.float32)


def _gate(x: Tensor, limit: float, intervals: float, powers: tuple[tuple[float, ...], ...]) -> Tensor:
    """`x * (1/2 + p(x))` with p odd: `x/2 + |x| p(|x|)`, with neither exponential nor division.

    p is a cubic polynomial on each of eight intervals, fitted minimax for the product (a linear program on 400 Chebyshev points of each), with
    the end held so that x beyond `limit` gives x, and 0 below `-limit`. Eight, because AVX2 looks up one of eight values in one instruction.
    """
    size = x.abs()
    a = torch.where(size < limit, size, limit)
    interval = (a * intervals).to(torch.int32)
    p, *rest = (torch.tensor(row, device=x.device)[interval] for row in reversed(powers))
    for coefficient in rest:
        p = p * a + coefficient
    return x * 0.5 + size * p


def gelu(x: Tensor) -> Tensor:
    """`x * Phi(x)` to 1.6e-5 absolute."""
    return _gate(x, *_GELU)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU, to 1.4e-5 absolute."""
    return _gate(x, *_GELU_TANH)


def silu(x: Tensor) -> Tensor:
    """`x * sigmoid(x)`."""
    return x / (exp(0.0 - x) + 1.0)


def sigmoid(x: Tensor) -> Tensor:
    """`1 / (1 + e**-x)`."""
    return 1.0 / (exp(0.0 - x) + 1.0)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent to 2e-7 absolute: `(1 - e) / (1 + e)` with `e = exp(-2 |x|)`, signed as x."""
    e = exp(x.abs() * -2.0)
    return torch.copysign((1.0 - e) / (1.0 + e), x)


def relu(x: Tensor) -> Tensor:
    """`max(x, 0)`; NaN becomes 0."""
    return torch.where(x > 0.0, x, 0.0)


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """`max(x, 0) + slope * min(x, 0)`, one of the two being zero; NaN becomes 0."""
    return torch.where(x > 0.0, x, 0.0) + torch.where(x < 0.0, x, 0.0) * torch.tensor(slope, dtype=torch.float32)


def hardswish(x: Tensor) -> Tensor:
    """`x * clamp(x / 6 + 1/2, 0, 1)`, the sixth as a factor."""
    return x * (x * torch.tensor(1.0 / 6.0, dtype=torch.float32) + 0.5).clamp(0.0, 1.0)


ACTIVATIONS = {
    "none": lambda x: x, "relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu, "tanh": tanh,
}  # fmt: skip

CONV_ACTIVATIONS = (*ACTIVATIONS, "leaky_relu", "hardswish")
"""What a convolution can apply; `leaky_relu` with a slope."""


def activate(x: Tensor, name: str, slope: float = 0.0) -> Tensor:
    """One of `CONV_ACTIVATIONS`."""
    if name == "leaky_relu":
        return leaky_relu(x, slope)
    return hardswish(x) if name == "hardswish" else ACTIVATIONS[name](x)
