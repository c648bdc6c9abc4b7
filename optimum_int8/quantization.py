"""`quantize`: from a float model to the same model on INT8."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import Any

from torch import nn

from .batches import as_batches
from .calibration import run_batch
from .config import Int8Config
from .errors import CalibrationError, ConfigError, QuantizationError
from .nn import Int8Module, check_finite, copy_of
from .nn.families import unpack_attention, unpack_relative, unpacked
from .passes import InspectReport, inspect
from .precision import widen
from .prepare import Prepared, prepare
from .remedies import evaluating
from .restore import activate, build_skeleton, describe, describe_functional, expected_tensors, finish_loading
from .sites import (
    bare_parameters,
    conceal,
    conceal_experts,
    expose,
    expose_experts,
    find_experts,
    find_functional,
    find_linears,
    find_routers,
    find_sites,
    require_sites,
)
from .sites.float_modules import TABLE
from .sites.functional.routers import ROUTER

__all__ = [
    "InspectReport",
    "build_skeleton",
    "convert",
    "expected_tensors",
    "finish_loading",
    "inspect",
    "prepare_copy",
    "quantize",
]


NOT_LOOKED_FOR = "a bare parameter; whether F.linear or F.conv reads it shows an example: give one as calibration_data"


def quantize(
    model: nn.Module,
    config: Int8Config | None = None,
    calibration_data: Iterable[Any] | None = None,
    *,
    inplace: bool = False,
    progress: bool = True,
) -> nn.Module:
    """Turn a float model into an INT8 one of the same class.

    What stays float is float32: of a model in 16 bits, parameters, buffers and results too, so that blocks are fused and no more is rounded
    than INT8 asks for. `.to(torch.bfloat16)` makes what is not INT8 16 bits wide again; loading makes it float32.

    Args:
        model: any module; its Linears, Conv1Ds, convolutions, Embeddings, LSTMs, GRUs, their cells, average
            poolings (static), the attention cores of Transformers and of
            `nn.MultiheadAttention`, stacks of
            experts' matrices, and the bare parameters that `F.linear`, `F.conv1d` and `F.conv2d` read (`block.weight.linear`; found on the
            first batch) are quantized.
        config: what and how; the default is dynamic.
        calibration_data: batches, each a mapping of keyword arguments, a tuple of positional ones, or one tensor; also one such batch. Dynamic needs none, and
            of bare parameters none is found without; one batch is enough for them.
        inplace: convert `model` itself instead of a copy.
        progress: show a bar while calibrating.

    Raises:
        ConfigError: `config` has an accuracy budget, which takes a metric.
        QuantizationError: nothing to quantize, an excluded name that does not exist, a model that is INT8 already, parameters or
            running statistics that are not finite.
        CalibrationError: static without calibration data, with empty data or with values that are not finite.
        DataError: calibration data in a form that is no batch of this model.

    Example:
        >>> import torch
        >>> int8 = quantize(torch.nn.Sequential(torch.nn.Linear(64, 8)), Int8Config(approach="dynamic"))
        >>> int8(torch.ones(2, 64)).shape
        torch.Size([2, 8])
    """
    config = config or Int8Config()
    if config.accuracy_budget is not None:
        raise ConfigError("accuracy_budget needs a metric to keep it by; call tune(...), or the quantizer of a task")
    return convert(prepare_copy(model, config, calibration_data, inplace=inplace, progress=progress))


def prepare_copy(
    model: nn.Module,
    config: Int8Config,
    calibration_data: Iterable[Any] | None,
    *,
    inplace: bool = False,
    progress: bool = True,
) -> Prepared:
    """Check and calibrate a copy of `model`: all of `quantize` but the conversion, with the same arguments and errors."""
    if any(isinstance(module, Int8Module) for module in model.modules()):
        raise QuantizationError(
            f"this {type(model).__name__} is INT8 already; quantize the FP32 model it was made from"
        )
    if config.needs_data and calibration_data is None:
        dynamic = config.approach == "dynamic"
        setting = f"smooth_quant {config.smooth_quant!r}" if dynamic else f"approach {config.approach!r}"
        instead = "smooth_quant 'off'" if dynamic else "approach 'dynamic'"
        raise CalibrationError(f"{setting} needs calibration_data; pass batches, or use {instead}")
    calibration_data = as_batches(model, calibration_data)
    target = unpack_relative(unpack_attention(model if inplace else copy_of(model)))
    try:
        expose_experts(target, find_experts(target))
        calibration_data, reasons = _expose_weights(target, calibration_data)
        sites = find_sites(target, config, reasons)
        conceal(target, sites.int8)
        conceal_experts(target, sites.int8)
        check_finite(target, config)
        prepared = prepare(target, sites, config, calibration_data, progress)
        require_sites(model, sites)
    except BaseException:
        conceal_experts(conceal(target))
        raise
    return prepared


def _expose_weights(model: nn.Module, data: Iterable[Any] | None) -> tuple[Iterable[Any] | None, dict[str, str]]:
    """Make modules of the bare parameters that functions read in the first batch. Returns the data, whole, and why some stay FP32."""
    names = bare_parameters(model)
    choosing = find_routers(model)
    routers = {f"{name}.linear": ROUTER for name in names if name in choosing}
    names = [name for name in names if f"{name}.linear" not in routers]
    if not names:
        return data, routers
    iterator = iter(data or ())
    first = next(iterator, None)
    if first is None:
        wanted = find_linears(model, names)
        expose(model, wanted)
        return data, routers | {name: NOT_LOOKED_FOR for name in names if f"{name}.linear" not in wanted}
    with evaluating(model):
        wanted, reasons = find_functional(model, lambda: run_batch(model, first))
    expose(model, wanted)
    spoken = {site.rpartition(".")[0] for site in (*wanted, *reasons)}
    reasons |= {name: TABLE for name in names if name not in spoken} | routers
    return itertools.chain([first], iterator) if iterator is data else data, reasons


def convert(prepared: Prepared) -> nn.Module:
    """Put INT8 modules at the sites of `prepared.model`, in place, and make it run as one model."""
    model = prepared.model
    config = prepared.config
    sites = prepared.sites
    shared: dict[int, Int8Module] = {}
    for kind, names in sites.by_kind():
        for name in names:
            kind.convert(model, name, functools.partial(prepared.counterpart, name), shared)
    widen(conceal_experts(conceal(model)))
    metadata = describe(config, sites)
    functional = describe_functional(model, sites)
    if functional:
        metadata["functional"] = functional
    if relative := unpacked(model):
        metadata["unpacked"] = relative
    if prepared.notes:
        metadata["remedies"] = prepared.notes
    return activate(model, metadata)
