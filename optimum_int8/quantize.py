"""`quantize`: from a float model to the same model on INT8."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .calibrate import Range, collect_ranges
from .config import Int8Config
from .errors import CalibrationError, QuantizationError
from .nn import (
    ATTENTION,
    CONV,
    EMBEDDING,
    LINEAR,
    Int8Attention,
    Int8Conv,
    Int8Embedding,
    Int8Linear,
    Int8Module,
    Sites,
    find_sites,
    require_sites,
)
from .passes import InspectReport, inspect
from .restore import activate, build_skeleton, describe, expected_tensors, finish_loading, put

__all__ = ["InspectReport", "build_skeleton", "expected_tensors", "finish_loading", "inspect", "quantize"]


def quantize(
    model: nn.Module,
    config: Int8Config | None = None,
    calibration_data: Iterable[Any] | None = None,
    *,
    inplace: bool = False,
    progress: bool = True,
) -> nn.Module:
    """Turn a float model into an INT8 one of the same class.

    Args:
        model: any module; its Linears, Conv1Ds, convolutions, Embeddings and (in Transformers models) attention cores are quantized.
        config: what and how; the default is dynamic.
        calibration_data: static only: batches, each a mapping of keyword arguments, a tuple of positional ones, or one tensor.
        inplace: convert `model` itself instead of a copy.
        progress: show a bar while calibrating.

    Raises:
        QuantizationError: nothing to quantize, an excluded name that does not exist, a model that is INT8 already, weights that are
            not finite.
        CalibrationError: static without calibration data, with empty data or with values that are not finite.

    Example:
        >>> import torch
        >>> int8 = quantize(torch.nn.Sequential(torch.nn.Linear(64, 8)), Int8Config(approach="dynamic"))
        >>> int8(torch.ones(2, 64)).shape
        torch.Size([2, 8])
    """
    config = config or Int8Config()
    if any(isinstance(module, Int8Module) for module in model.modules()):
        raise QuantizationError(
            f"this {type(model).__name__} is INT8 already; quantize the FP32 model it was made from"
        )
    if config.approach != "dynamic" and calibration_data is None:
        raise CalibrationError(
            f"approach {config.approach!r} needs calibration_data; pass batches, or use approach 'dynamic'"
        )
    sites = find_sites(model, config)
    _check_weights(model, sites)
    target = model if inplace else copy.deepcopy(model)
    ranges: dict[str, dict[str, Range]] = {}
    if config.approach != "dynamic":
        ranges = collect_ranges(target, sites, config, calibration_data or (), progress)
        for name in [n for n in sites.of_kind(LINEAR, CONV, ATTENTION) if n not in ranges]:
            sites.demote(name, "never reached by the calibration data")
        require_sites(model, sites)
    _convert(target, sites, config, ranges)
    return activate(target, describe(config, sites))


def _check_weights(model: nn.Module, sites: Sites) -> None:
    """Before anything is changed: a weight that is not finite has no scale."""
    for name in sites.of_kind(LINEAR, CONV, EMBEDDING):
        for key, parameter in model.get_submodule(name).named_parameters(recurse=False):
            if not bool(torch.isfinite(parameter).all()):
                raise QuantizationError(
                    f"{key} of {name!r} holds values that are not finite; mend the FP32 model, or exclude {name!r}"
                )


def _convert(model: nn.Module, sites: Sites, config: Int8Config, ranges: dict[str, dict[str, Range]]) -> None:
    per_channel = config.weight_granularity == "per_channel"
    owners: dict[int, Int8Embedding] = {}
    for name in sites.of_kind(EMBEDDING):
        module = model.get_submodule(name)
        owner = owners.get(id(module.weight))
        table = Int8Embedding.from_float(module, per_channel) if owner is None else Int8Embedding.like(module)  # type: ignore[arg-type]
        if owner is not None:
            table.share(owner)
        owners.setdefault(id(module.weight), table)
        put(model, name, EMBEDDING, table)
    for name in sites.of_kind(LINEAR):
        module = model.get_submodule(name)
        new = Int8Linear.from_float(module, ranges.get(name, {}).get("input"), per_channel)
        if id(module.weight) in owners:
            new.tie(owners[id(module.weight)])
        put(model, name, LINEAR, new)
    for name in sites.of_kind(CONV):
        conv = model.get_submodule(name)
        put(model, name, CONV, Int8Conv.from_float(conv, ranges.get(name, {}).get("input"), per_channel))
    for name in sites.of_kind(ATTENTION):
        new_core: Int8Module = Int8Attention.from_ranges(ranges.get(name))
        put(model, name, ATTENTION, new_core)
