"""SmoothQuant: outliers of activations move into the weights that read them. Xiao et al., 2022, arXiv:2211.10438.

Channel j of the output of a norm or a linear is divided by s_j, and column j of every linear that reads it multiplied by s_j, with
`s_j = max|x_j|**alpha / max|w_j|**(1 - alpha)`. Each s_j is rounded to a power of two: products then round as before, and the float
model computes the same to the bit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .. import numerics
from ..calibration import run_batch
from ..config import Int8Config
from ..errors import CalibrationError
from ..nn import float_weight
from .flow import Edge, find_edges, tensors_of
from .rows import Inputs, collect_inputs, evaluating

logger = logging.getLogger(__name__)

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Tried per block, as well as no factors."""

LARGEST_FACTOR = 2.0**12
"""Factors stay between this and its reciprocal, so that weights stay far from the ends of float32."""


@dataclass
class SmoothReport:
    """What SmoothQuant did.

    Attributes:
        alphas: the norm or linear whose channels were rescaled, to its alpha; None where no alpha was better than none.
        skipped: linears whose input could not be rescaled, to the reason.
    """

    alphas: dict[str, float | None] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self)


def smooth_quant(model: nn.Module, config: Int8Config, data: Sequence[Any], *, progress: bool = True) -> SmoothReport:
    """Rescale channels of a float model in place; it computes what it computed before.

    Args:
        model: any float module.
        config: `smooth_quant` says whether `smooth_alpha` or the best of `ALPHAS` is taken; the best is that with the least
            squared error of the readers' outputs under the other settings.
        data: calibration batches; the first one shows who reads what.

    Raises:
        CalibrationError: there is no batch.
    """
    if not data:
        raise CalibrationError("the calibration data holds no batch; expected at least one")
    flow = find_edges(model, data[0])
    report = SmoothReport(skipped=flow.obstacles)
    before = _outputs(model, data[0])
    kept = {id(p): (p, p.detach().clone()) for edge in flow.edges for p in _parameters(model, edge)}
    inputs = collect_inputs(model, [edge.readers[0] for edge in flow.edges], data, progress=progress)
    for edge in flow.edges:
        found = inputs.get(edge.readers[0])
        if found is None:
            report.skipped.update(dict.fromkeys(edge.readers, "never reached by the calibration data"))
            continue
        alpha, factors = _choose(model, edge, found, config)
        report.alphas[edge.source] = alpha
        if factors is not None:
            fold(model, edge, factors)
    if not _same(before, _outputs(model, data[0])):
        with torch.no_grad():
            for parameter, value in kept.values():
                parameter.copy_(value)
        logger.warning("SmoothQuant changed what this model computes and was undone; please report this model")
        return SmoothReport(skipped=dict.fromkeys(report.skipped, "rescaling changed what the model computes"))
    return report


@torch.no_grad()
def fold(model: nn.Module, edge: Edge, factors: Tensor) -> None:
    """Divide the output channels of `edge.source` by `factors` and multiply the columns of its readers with them."""
    source = model.get_submodule(edge.source)
    for parameter in source.parameters(recurse=False):
        out_first = isinstance(source, nn.Linear) and parameter.dim() == 2
        parameter.div_(factors.unsqueeze(1) if out_first else factors)
    for name in edge.readers:
        float_weight(model.get_submodule(name)).mul_(factors)


def smoothing_factors(absmax: Tensor, weight_absmax: Tensor, alpha: float) -> Tensor:
    """`absmax**alpha / weight_absmax**(1 - alpha)` per channel, rounded to powers of two; 1 where a channel is idle.

    Example:
        >>> smoothing_factors(torch.tensor([64.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0]), 0.5)
        tensor([8., 1., 1.])
    """
    exponent = alpha * torch.log2(absmax) - (1 - alpha) * torch.log2(weight_absmax)
    factors = torch.exp2(torch.round(exponent)).clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    return torch.where((absmax > 0) & (weight_absmax > 0), factors, 1.0)


def _choose(model: nn.Module, edge: Edge, inputs: Inputs, config: Int8Config) -> tuple[float | None, Tensor | None]:
    weights = [float_weight(model.get_submodule(name)).detach().float() for name in edge.readers]
    weight_absmax = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    if config.smooth_quant == "fixed":
        return config.smooth_alpha, smoothing_factors(inputs.absmax, weight_absmax, config.smooth_alpha)
    best: tuple[float | None, Tensor | None] = (None, None)
    least = _error(weights, inputs, torch.ones_like(weight_absmax), config)
    for alpha in ALPHAS:
        factors = smoothing_factors(inputs.absmax, weight_absmax, alpha)
        error = _error(weights, inputs, factors, config)
        if error < least:
            best = (alpha, factors)
            least = error
    return best


def _error(weights: list[Tensor], inputs: Inputs, factors: Tensor, config: Int8Config) -> float:
    """Squared error of the readers' outputs on the sampled rows, each relative to its energy."""
    x = inputs.rows / factors
    if config.approach == "dynamic":
        q, scale, zero_point = numerics.quantize_rows(x)
        rounded = numerics.dequantize_affine(q, scale.unsqueeze(-1), zero_point.unsqueeze(-1))
    else:
        qparams = numerics.choose_affine_qparams(float(x.amin()), float(x.amax()))
        rounded = numerics.dequantize_affine(numerics.quantize_affine(x, *qparams), *qparams)
    total = 0.0
    for weight in weights:
        q, scale = numerics.quantize_weight(weight * factors, config.weight_granularity == "per_channel")
        exact = inputs.rows @ weight.T
        difference = rounded @ (q.float() * scale.unsqueeze(1)).T - exact
        total += float(difference.square().sum() / exact.square().sum().clamp(min=1e-30))
    return total


def _parameters(model: nn.Module, edge: Edge) -> Iterable[nn.Parameter]:
    for name in (edge.source, *edge.readers):
        yield from model.get_submodule(name).parameters(recurse=False)


def _outputs(model: nn.Module, batch: Any) -> list[Tensor]:
    with evaluating(model):
        return list(tensors_of(run_batch(model, batch)))


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    """Equal up to what half precision may round; float32 models are equal to the bit."""
    return all(
        torch.allclose(a.float(), b.float(), rtol=0.0, atol=1e-3 * float(b.float().abs().amax().clamp(min=1e-6)))
        for a, b in zip(after, before, strict=True)
        if b.is_floating_point() and b.numel()
    )
