"""`prepare`: everything about a float model that its conversion to INT8 needs and that takes calibration data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .calibrate import Range, collect_ranges
from .config import Int8Config
from .errors import CalibrationError
from .nn import (
    Bfloat16Attention,
    Int8Attention,
    Int8AvgPool,
    Int8Conv,
    Int8Embedding,
    Int8Experts,
    Int8Linear,
    Int8Module,
    Int8Scores,
    float_weight,
)
from .nn.pool import average_window
from .observers import TokenRanges
from .remedies import collect_inputs, mean_errors, search_weight_scale, smooth_quant
from .sites import ATTENTION, BFLOAT16_ATTENTION, CONV, EMBEDDING, EXPERTS, LINEAR, POOL, SCORES, Sites

EXPERT_TOKENS = 32
"""Of calibration, that an expert must have seen for a range of its own: one of fewer would clip the next token."""


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

    def twin(self, name: str) -> Int8Module:
        """The INT8 module for the site `name`, made anew."""
        module, kind = self.model.get_submodule(name), self.sites.int8[name]
        if kind == ATTENTION:
            return Int8Attention.from_ranges(self.ranges.get(name), self.config.activation_bits)
        if kind == SCORES:
            return Int8Scores.from_ranges(self.ranges.get(name), self.config.activation_bits)
        if kind == BFLOAT16_ATTENTION:
            return Bfloat16Attention()
        if kind == EMBEDDING:
            return Int8Embedding.from_float(module, self.per_channel)  # type: ignore[arg-type]
        if kind == EXPERTS:
            ranges = self.ranges.get(name, {}) if self.config.approach != "dynamic" else None
            return Int8Experts.from_float(module, ranges, self.per_channel, self.config.activation_bits)  # type: ignore[arg-type]
        if kind == POOL:
            return Int8AvgPool.from_float(module, self.ranges[name]["input"], self.config.activation_bits)
        found, bits = self.ranges.get(name, {}).get("input"), self.config.activation_bits
        found = None if name in self.sites.per_token else found
        new: Int8Conv | Int8Linear
        if kind == CONV:
            new = Int8Conv.from_float(module, found, self.per_channel, bits)  # type: ignore[arg-type]
        else:
            new = Int8Linear.from_float(module, found, self.per_channel, self.weight_scales.get(name), bits)
        if new.bias is not None and name in self.bias_errors:
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
        tokens = {name: TokenRanges() for name in sites.of_kind(LINEAR, POOL)} if config.spares_tokens else {}
        experts: dict[str, dict[str, TokenRanges]] = {}
        prepared.ranges = collect_ranges(model, sites, config, data or (), progress, tokens, experts)
        _demote_empty(prepared)
        _choose_experts(prepared, experts)
        losing = [name for name, seen in tokens.items() if _loses(prepared, name, seen)]
        sites.per_token = [name for name in losing if sites.int8[name] == LINEAR]
        for name in losing:
            if sites.int8[name] == POOL:
                sites.demote(name, "a few outliers among the pixels would cost the others more than max_lost_bits")
        without = (EMBEDDING, BFLOAT16_ATTENTION)
        for name in [n for n, kind in sites.int8.items() if n not in prepared.ranges and kind not in without]:
            sites.demote(name, "never reached by the calibration data")
    if config.weight_range == "search":
        _search_weights(prepared, data, progress)
    if config.bias_correction and static:
        twins = {n: prepared.twin(n) for n in sites.of_kind(LINEAR, CONV) if model.get_submodule(n).bias is not None}
        prepared.bias_errors = mean_errors(model, twins, data or (), progress=progress)
        prepared.notes["bias_correction"] = {"corrected": len(prepared.bias_errors)}
    return prepared


def _choose_experts(prepared: Prepared, tokens: dict[str, dict[str, TokenRanges]]) -> None:
    """Leave the experts without a range that too few tokens reached, or whose tokens would lose too much by one; note how many."""
    limit = prepared.config.max_lost_bits if prepared.config.spares_tokens else None
    counts = {}
    for name, experts in tokens.items():
        if name not in prepared.ranges:
            continue
        ranges = prepared.ranges[name]
        for key, seen in experts.items():
            if seen.tokens < EXPERT_TOKENS or (limit is not None and seen.lost_bits(*ranges[key]) > limit):
                del ranges[key]
        total = len(prepared.model.get_submodule(name))  # type: ignore[arg-type]
        if len(ranges) < total:
            counts[name] = f"{total - len(ranges)} of {total} experts measure a range per token"
    if counts:
        prepared.notes["experts"] = counts


def _demote_empty(prepared: Prepared) -> None:
    """Leave sites in FP32 whose inputs held nothing that counts. Raises `CalibrationError` where all did."""
    empty = [n for n, found in prepared.ranges.items() if not found and prepared.sites.int8[n] != EXPERTS]
    if empty and len(empty) == len(prepared.ranges):
        raise CalibrationError(
            f"no value of the calibration data counts: the inputs of {empty[0]!r} and all others are empty, or padding by "
            f"their attention_mask; expected examples with tokens"
        )
    for name in empty:
        del prepared.ranges[name]
        prepared.sites.demote(name, "the calibration data reached it with empty inputs or padding alone")


def _loses(prepared: Prepared, name: str, tokens: TokenRanges) -> bool:
    """Whether the tokens that flow into a linear, or the pixels into a pooling, lose more of their bits to its range than
    `config.max_lost_bits`. The mean of n pixels has the rounding error of one divided by the root of n, which gives bits back."""
    limit = prepared.config.max_lost_bits
    if limit is None or name not in prepared.ranges:
        return False
    if prepared.sites.int8[name] == POOL:
        window = average_window(prepared.model.get_submodule(name))
        limit += math.log2(window.taps if window else max(tokens.tokens / tokens.examples, 1.0)) / 2
    return tokens.lost_bits(*prepared.ranges[name]["input"]) > limit


def _search_weights(prepared: Prepared, data: Iterable[Any] | None, progress: bool) -> None:
    """Scales for the linears whose weight is theirs alone: a tied one shares the scales of an embedding."""
    tables = {id(m.weight) for m in prepared.model.modules() if isinstance(m, nn.Embedding)}
    modules = {n: prepared.model.get_submodule(n) for n in prepared.sites.of_kind(LINEAR)}
    modules = {n: m for n, m in modules.items() if id(m.weight) not in tables}
    inputs = {} if data is None else collect_inputs(prepared.model, modules, data, progress=progress)
    for name, module in modules.items():
        rows = inputs[name].rows if name in inputs else None
        prepared.weight_scales[name] = search_weight_scale(float_weight(module), rows, prepared.per_channel)
    prepared.notes["weight_range"] = {"searched": len(modules)}
