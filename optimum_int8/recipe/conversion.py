"""`convert`: a float model and its recipe to an INT8 model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .. import numerics
from ..config import Int8Config
from ..deploy import Save
from ..errors import CalibrationError, QuantizationError
from ..nn import CALLS, INT8_CALLS, Int8Module, check_finite, copy_of
from ..nn.families import unpack_attention
from ..prepare import Prepared
from ..quantize import convert as convert_prepared
from ..sites import ATTENTION, EMBEDDING, collect_sites, expose
from .conf import QuantConf, tracing
from .match import match
from .op import Op
from .record import Recording
from .watch import stored_zero_point

QKV = ("query", "key", "value")
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
    int8 = prepared.twin("") if sites.int8.get("", ATTENTION) != ATTENTION else convert_prepared(prepared)
    if not hasattr(int8, "save"):
        vars(int8)["save"] = Save(int8, example_input)
    return int8


@dataclass
class PreparedByRecipe(Prepared):
    """A float model whose INT8 modules a recipe describes."""

    recipe: dict[str, Op] = field(default_factory=dict)

    def twin(self, name: str) -> Int8Module:
        """The INT8 module for the site `name`, with the recipe's scales and zero points to the bit: a range does not give them back exactly."""
        op, kind = self.recipe[name], self.sites.int8[name]
        if kind in CALLS:
            return _call(op, kind)
        config = dataclasses.replace(self.config, weight_granularity=op.weight_granularity)
        new: Any = Prepared(self.model, config, self.sites, {name: _ranges(op, kind)}).twin(name)
        if kind == ATTENTION:
            for key, scale in zip(QKV, op.input_scales, strict=True):
                setattr(new, f"{key}_scale", torch.tensor(scale))
        elif kind != EMBEDDING:
            _set_input_qparams(new, op)
            _set_weight_scales(new, op, self.model.get_submodule(name))
        return new


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


def _call(op: Op, kind: str) -> Int8Module:
    new = INT8_CALLS[kind](op.inputs_quantized, op.output_quantized)
    for i, quantized in enumerate(op.inputs_quantized):
        if quantized:
            zero_point = stored_zero_point(op.input_zero_points[i], op.input_quantized_dtypes[i])
            new.set_qparams(f"input{i}", op.input_scales[i], zero_point)
    if op.output_quantized:
        zero_point = stored_zero_point(op.output_zero_points[0], op.output_quantized_dtypes[0])
        new.set_qparams("output", op.output_scales[0], zero_point)
    return new


def _ranges(op: Op, kind: str) -> dict[str, tuple[float, float]]:
    """Ranges close to those of the recipe's quantization parameters."""
    names = QKV if kind == ATTENTION else ("input",)
    ranges = {}
    for name, scale, zero_point, dtype in zip(
        names, op.input_scales, op.input_zero_points, op.input_quantized_dtypes, strict=False
    ):
        zero = stored_zero_point(zero_point, dtype)
        ranges[name] = (-zero * scale, (255 - zero) * scale)
    return ranges


def _set_input_qparams(module: Any, op: Op) -> None:
    """The recipe's own, to the bit: a range does not give it back exactly."""
    module.input_scale = torch.tensor(op.input_scales[0])
    zero_point = stored_zero_point(op.input_zero_points[0], op.input_quantized_dtypes[0])
    module.input_zero_point = torch.tensor(zero_point, dtype=torch.int32)


def _set_weight_scales(module: Any, op: Op, original: nn.Module) -> None:
    """The recipe's own, where the weight would get others."""
    if not op.weight_scales:
        return
    given, rows = torch.tensor(op.weight_scales[0]), module.weight_scale.shape[0]
    if len(given) != (rows if op.weight_granularity == "per_channel" else 1):
        return
    given = given.expand(rows)
    if torch.equal(given, module.weight_scale):
        return
    weight = _rows(original)
    q = torch.round(weight * numerics.reciprocal(given).unsqueeze(1)).clamp(-numerics.SIGNED_MAX, numerics.SIGNED_MAX)
    state = module.state_dict()
    state["weight"] = q.to(torch.int8).reshape(state["weight"].shape)
    state["weight_scale"] = given.contiguous()
    module.load_state_dict(state)


def _rows(original: nn.Module) -> Tensor:
    weight: Tensor = original.weight.detach().to(torch.float32)  # type: ignore[operator]
    return weight.T if isinstance(original, Conv1D) else weight.flatten(1)
