"""`prepare_qat` and `convert_qat`: a float model to one on fake quantization, and that one to INT8."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..config import Int8Config
from ..errors import ConfigError, QuantizationError
from ..nn import Int8Module, attentions, check_finite, copy_of, restore_attention
from ..nn.fake import FakeQuantize
from ..prepare import Prepared
from ..quantization import convert, prepare_copy
from ..sites import FakeQuantization, Sites, conceal

STATE = "_int8_qat"


@dataclass(frozen=True)
class QatState:
    """What a prepared model was prepared with."""

    config: Int8Config
    sites: Sites
    notes: dict[str, Any]
    attention: dict[str, str]
    """The attention implementations of the float model."""


@dataclass
class Trained(Prepared):
    """A float model with the quantization parameters that its training ended with: site to input to fake quantizer."""

    fake_quantizers: dict[str, dict[str, FakeQuantize]] = field(default_factory=dict)

    def counterpart(self, name: str) -> Int8Module:
        """The INT8 module for the site `name`, on the trained quantization parameters."""
        new = super().counterpart(name)
        for key, fake_quantize in self.fake_quantizers.get(name, {}).items():
            new.get_buffer(f"{key}_scale").copy_(fake_quantize.current_scale().detach())
            if key == "input":
                new.get_buffer("input_zero_point").copy_(fake_quantize.zero_point)
        return new


def prepare_qat(
    model: nn.Module,
    config: Int8Config | None = None,
    calibration_data: Iterable[Any] = (),
    *,
    learnable: bool = True,
    inplace: bool = False,
    progress: bool = True,
) -> nn.Module:
    """Calibrate a float model and insert fake quantization exactly where inference quantizes.

    The model keeps its class, its modules keep theirs (as subclasses), and its parameters stay what is trained and saved. Ranges are
    saved with them, as `<module>.input_fake_quantize.*` and `<module>.fake_quantized_attention.*`.

    Args:
        config: what and how, with `approach="qat"`; the default is that.
        calibration_data: batches as `quantize` takes them; training starts from the ranges of static quantization.
        learnable: train activation scales, instead of following the extremes that each step shows.
        inplace: prepare `model` itself instead of a copy.

    Raises:
        ConfigError: another approach, or settings that do not go with training.
        QuantizationError: a model that is prepared or INT8 already; nothing to quantize.
        CalibrationError: no calibration data, or values that are not finite.

    Example:
        >>> import torch
        >>> model = prepare_qat(torch.nn.Sequential(torch.nn.Linear(64, 8)), calibration_data=[torch.randn(4, 64)])
        >>> model(torch.randn(2, 64)).sum().backward()
        >>> int8 = convert_qat(model)
    """
    config = config or Int8Config(approach="qat")
    if config.approach != "qat":
        raise ConfigError(f'the approach is {config.approach!r}; expected "qat" to train with fake quantization')
    if config.bias_correction or config.weight_range != "absmax":
        raise ConfigError(
            "bias_correction and weight_range fix a model that is not trained; leave them out for training"
        )
    if is_prepared(model):
        raise QuantizationError(f"this {type(model).__name__} is prepared for training already; give the FP32 model")
    prepared = prepare_copy(model, config, calibration_data, inplace=inplace, progress=progress)
    target = prepared.model
    sites = prepared.sites
    _insert(prepared, learnable)
    before = attentions(target)
    for kind, _ in sites.by_kind():
        kind.activate_fake(target)
    setattr(target, STATE, QatState(config, sites, prepared.notes, before))
    return target


def _insert(prepared: Prepared, learnable: bool) -> None:
    model = prepared.model
    bits = prepared.config.activation_bits
    device = next(model.parameters()).device
    for name, kind in prepared.sites.kinds():
        ranges = prepared.ranges.get(name, {})
        kind.fake(model.get_submodule(name), FakeQuantization(ranges, prepared.per_channel, bits, learnable, device))


def is_prepared(model: nn.Module) -> bool:
    """Whether `prepare_qat` made this model."""
    return hasattr(model, STATE)


def qat_state(model: nn.Module) -> QatState:
    """What the model was prepared with. Raises `QuantizationError` when it was not."""
    if not is_prepared(model):
        raise QuantizationError(f"this {type(model).__name__} holds no fake quantization; call prepare_qat(...) first")
    return getattr(model, STATE)


def remove_fake_quantize(model: nn.Module) -> nn.Module:
    """Undo `prepare_qat`, in place: the float model with the weights it has now."""
    return conceal(_remove_fake_quantize(model))


def _remove_fake_quantize(model: nn.Module) -> nn.Module:
    state = qat_state(model)
    for name, kind in state.sites.kinds():
        kind.unfake(model.get_submodule(name))
    restore_attention(model, state.attention)
    delattr(model, STATE)
    return model


def convert_qat(model: nn.Module, *, inplace: bool = False) -> nn.Module:
    """The INT8 model of a trained one: each module computes what its fake-quantized counterpart did, up to float rounding.

    Args:
        model: from `prepare_qat`, trained.
        inplace: convert `model` itself instead of a copy.

    Raises:
        QuantizationError: not a prepared model, or weights that are not finite: the training diverged.
    """
    state = qat_state(model)
    check_finite(model, state.config)
    target = model if inplace else _copy(model)
    found = {name: kind.fake_quantizers(target.get_submodule(name)) for name, kind in state.sites.kinds()}
    # static; the scales are those of `Trained`
    ranges = {name: dict.fromkeys(inputs, (-1.0, 1.0)) for name, inputs in found.items() if inputs}
    _remove_fake_quantize(target)
    trained = Trained(target.eval(), state.config, state.sites, ranges, notes=state.notes, fake_quantizers=found)
    return convert(trained).requires_grad_(False)


def _copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU, without the wrapper for mixed precision that accelerate sets on the original's `forward`."""
    target = copy_of(model)
    if target.__dict__.pop("_original_forward", None) is not None:
        target.__dict__.pop("forward", None)
    return target.cpu()
