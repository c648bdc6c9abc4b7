"""`prepare`: everything about a float model that its conversion to INT8 needs and that takes calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .calibration import collect_ranges
from .config import Int8Config
from .errors import CalibrationError
from .nn import Int8Module, float_weight
from .observers import TokenRanges
from .remedies import collect_inputs, mean_errors, search_weight_scale, smooth_quant
from .sites import Calibrated, Quantization, Range, Sites


@dataclass
class Prepared:
    """A float model, ready to be converted; some of its sites may still be left in FP32 (`sites.demote`).

    Attributes:
        model: float; SmoothQuant has rescaled it where `config` says so.
        ranges: site to input to range; empty when dynamic.
        weight_scales: linear to scales that `config.weight_range` found; absent where the largest weights rule.
        bias_errors: linear to what `config.bias_correction` adds to its bias.
        notes: what `config.json` says of the remedies.
    """

    model: nn.Module
    config: Int8Config
    sites: Sites
    ranges: dict[str, dict[str, Range]] = field(default_factory=dict)
    weight_scales: dict[str, Tensor] = field(default_factory=dict)
    bias_errors: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def per_channel(self) -> bool:
        """Whether each output channel of a weight has a scale of its own."""
        return self.config.weight_granularity == "per_channel"

    def counterpart(self, name: str) -> Int8Module:
        """The INT8 module for the site `name`, made anew."""
        ranges = None if name in self.sites.per_token else self.ranges.get(name)
        scale = self.weight_scales.get(name)
        how = Quantization(ranges, self.per_channel, self.config.activation_bits, scale)
        new: Any = self.sites.kind(name).from_float(self.model.get_submodule(name), how)
        if name in self.bias_errors:
            new.bias += self.bias_errors[name]
        return new


def prepare(model: nn.Module, sites: Sites, config: Int8Config, data: Iterable[Any] | None, progress: bool) -> Prepared:
    """Calibrate `model`, in place where SmoothQuant rescales it, and apply the remedies that `config` asks for.

    Args:
        data: read once, and kept when a remedy needs it again; None for a dynamic model.

    Raises:
        CalibrationError: data without a batch, or with values that are not finite.
    """
    prepared = Prepared(model, config, sites)
    static = config.approach != "dynamic"
    if config.smooth_quant != "off" or config.bias_correction or config.weight_range == "search":
        data = None if data is None else list(data)
    if config.smooth_quant != "off":
        prepared.notes["smooth_quant"] = smooth_quant(model, config, data or (), progress=progress).to_dict()  # type: ignore[arg-type]
    if static:
        tokens: dict[str, dict[str, TokenRanges]] = {}
        prepared.ranges = collect_ranges(model, sites, config, data or (), progress, tokens)
        _demote_empty(prepared)
        _judge(prepared, tokens)
        for name, kind in sites.kinds():
            if kind.needs_ranges and name not in prepared.ranges:
                sites.demote(name, "never reached by the calibration data")
    if config.weight_range == "search":
        _search_weights(prepared, data, progress)
    if config.bias_correction and static:
        biased = [n for n, kind in sites.kinds() if kind.corrects_bias and model.get_submodule(n).bias is not None]
        counterparts = {name: prepared.counterpart(name) for name in biased}
        prepared.bias_errors = mean_errors(model, counterparts, data or (), progress=progress)
        prepared.notes["bias_correction"] = {"corrected": len(prepared.bias_errors)}
    return prepared


def _judge(prepared: Prepared, tokens: Mapping[str, Mapping[str, TokenRanges]]) -> None:
    """Let each site's kind say what becomes of it, by what calibration learned of its inputs."""
    config = prepared.config
    sites = prepared.sites
    limit = config.max_lost_bits if config.spares_tokens else None
    for name, kind in sites.kinds():
        if name not in prepared.ranges:
            continue
        module = prepared.model.get_submodule(name)
        verdict = kind.judge(Calibrated(module, prepared.ranges[name], tokens.get(name, {}), limit))
        if verdict.per_token:
            sites.per_token.append(name)
        if verdict.reason:
            sites.demote(name, verdict.reason)
        if verdict.note:
            prepared.notes.setdefault(kind.name, {})[name] = verdict.note


def _demote_empty(prepared: Prepared) -> None:
    """Leave sites in FP32 whose inputs held nothing that counts. Raises `CalibrationError` where all did."""
    empty = [n for n, found in prepared.ranges.items() if not found and not prepared.sites.kind(n).may_lack_ranges]
    if empty and len(empty) == len(prepared.ranges):
        raise CalibrationError(
            f"no value of the calibration data counts: the inputs of {empty[0]!r} and all others are empty, or padding by "
            f"their attention_mask; expected examples with tokens"
        )
    for name in empty:
        del prepared.ranges[name]
        prepared.sites.demote(name, "the calibration data reached it with empty inputs or padding alone")


def _search_weights(prepared: Prepared, data: Iterable[Any] | None, progress: bool) -> None:
    """Scales for the linears whose weight is theirs alone: a tied one shares the scales of an embedding."""
    tables = {id(m.weight) for m in prepared.model.modules() if isinstance(m, nn.Embedding)}
    names = [name for name, kind in prepared.sites.kinds() if kind.searches_weight]
    modules = {n: prepared.model.get_submodule(n) for n in names}
    modules = {n: m for n, m in modules.items() if id(m.weight) not in tables}
    inputs = {} if data is None else collect_inputs(prepared.model, modules, data, progress=progress)
    for name, module in modules.items():
        rows = inputs[name].rows if name in inputs else None
        prepared.weight_scales[name] = search_weight_scale(float_weight(module), rows, prepared.per_channel)
    prepared.notes["weight_range"] = {"searched": len(modules)}
