"""`convert`: a float model and its recipe to an INT8 model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..config import Int8Config
from ..deploy import Save
from ..errors import CalibrationError, QuantizationError
from ..nn import Int8Module, check_finite, copy_of
from ..nn.families import unpack_attention
from ..prepare import Prepared
from ..quantization import convert as convert_prepared
from ..sites import RecipeEntry, collect_sites, expose
from .conf import QuantConf, tracing
from .match import match
from .op import Op
from .record import Recording
from .watch import stored_zero_point

NOT_IN_RECIPE = "not in the recipe"
SWITCHED_OFF = "inputs_quantized is false in the recipe"


def convert(model: nn.Module, conf: QuantConf, example_input: Any, *, inplace: bool = False) -> nn.Module:
    """Turn a float model into an INT8 one of the same class, as its recipe says op by op.

    Args:
        model: the float model that was calibrated, or one with the same module names.
        conf: calibrated, or read from a file.
        example_input: arguments of one call: a mapping of keyword arguments, a tuple of positional ones, or one tensor. The model is run
            on it once, to see its ops in order; `save` exports it on them.
        inplace: convert `model` itself instead of a copy.

    Returns:
        The INT8 model, with a method `save(path)` that writes it as a `.pt2`; see `deploy.save`.

    Raises:
        CalibrationError: the recipe is empty.
        ConfigError: an op that the model does not have, or an edit that cannot be done: with the line.
        QuantizationError: the model is INT8 already, or nothing is left to quantize.
    """
    if any(isinstance(module, Int8Module) for module in model.modules()):
        raise QuantizationError(f"this {type(model).__name__} is INT8 already; convert the FP32 model it was made from")
    if not conf.ops:
        raise CalibrationError("the recipe is empty; call the model inside `with calibrate(conf):` first")
    traced = trace(model, example_input)
    recipe = match(conf.ops, traced)
    target = unpack_attention(model if inplace else copy_of(model))
    wanted = {name: traced.seen[name].site.functional for name, op in recipe.items() if op.is_quantized}
    expose(target, {name: about for name, about in wanted.items() if about is not None})
    sites = collect_sites(target, Int8Config(approach="static"))
    for name in list(sites.int8):
        op = recipe.get(name)
        if op is None or not op.is_quantized:
            sites.demote(name, NOT_IN_RECIPE if op is None else SWITCHED_OFF)
    if not sites.int8:
        raise QuantizationError("the recipe quantizes no op of this model; expected one with inputs_quantized true")
    config = Int8Config(approach="static", residuals="float32")  # sums are ops of the recipe
    check_finite(target, config)
    prepared = PreparedByRecipe(target, config, sites, recipe=recipe)
    is_one_site = "" in sites.int8 and sites.kind("").takes_place
    int8 = prepared.counterpart("") if is_one_site else convert_prepared(prepared)
    if not hasattr(int8, "save"):
        vars(int8)["save"] = Save(int8, example_input)
    return int8


@dataclass
class PreparedByRecipe(Prepared):
    """A float model whose INT8 modules a recipe describes."""

    recipe: dict[str, Op] = field(default_factory=dict)

    def counterpart(self, name: str) -> Int8Module:
        """The INT8 module for the site `name`, with the recipe's scales and zero points to the bit."""
        return self.sites.kind(name).from_recipe(self.model.get_submodule(name), _entry(self.recipe[name]))


def call(model: nn.Module, example_input: Any) -> Any:
    """Run a model on arguments given as `convert` takes them."""
    if isinstance(example_input, Mapping):
        return model(**example_input)
    return model(*example_input) if isinstance(example_input, (tuple, list)) else model(example_input)


def trace(model: nn.Module, example_input: Any) -> Recording:
    """The ops that `model` runs on an example, in order; nothing is observed."""
    recording = Recording(lambda op, name, place: False, observes=False)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), tracing(recording):
            call(model, example_input)
    finally:
        recording.leave()
        for module, mode in modes.items():
            module.training = mode
    return recording


def _entry(op: Op) -> RecipeEntry:
    """What a recipe says of an op, as sites take it."""
    triples = zip(op.input_scales, op.input_zero_points, op.input_quantized_dtypes, strict=False)
    output = None
    if op.output_quantized:
        output = op.output_scales[0], stored_zero_point(op.output_zero_points[0], op.output_quantized_dtypes[0])
    return RecipeEntry(
        inputs_quantized=op.inputs_quantized,
        inputs=[(scale, stored_zero_point(zero_point, dtype)) for scale, zero_point, dtype in triples],
        output=output,
        weight_scales=op.weight_scales[0] if op.weight_scales else (),
        per_channel=op.weight_granularity == "per_channel",
    )
