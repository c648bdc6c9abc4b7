"""What is handed to a `SiteKind`, and what it hands back: small classes with names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.fake import FakeQuantize
from ..observers import TokenRanges

Range = tuple[float, float]
"""Minimum and maximum."""

Observe = Callable[[nn.Module, tuple[Any, ...]], None]
"""Told of a site's module and the positional arguments of a call, before it runs."""

Compute = Callable[[], Tensor]
Visit = Callable[[str, tuple[Any, ...], Tensor, Compute, Compute], "Tensor | None"]
"""Called with a site's name, its inputs, its float output, and functions that compute the INT8 and the float output again. A
tensor that it returns takes the place of the float output."""


@dataclass(frozen=True)
class Quantization:
    """How one site is quantized.

    Attributes:
        ranges: input to range; None where they are measured at run time.
        per_channel: whether each output channel of a weight has a scale of its own.
        activation_bits: as in `Int8Config`.
        weight_scale: scales of the weight that are known already, float32 `[out]`.
    """

    ranges: Mapping[str, Range] | None = None
    per_channel: bool = True
    activation_bits: int = 8
    weight_scale: Tensor | None = None

    @property
    def input_range(self) -> Range | None:
        """The range of the only input."""
        return None if self.ranges is None else self.ranges.get("input")


@dataclass(frozen=True)
class Storage:
    """What a checkpoint says of one INT8 module besides its tensors.

    Attributes:
        static: whether it holds quantization parameters of its inputs.
        activation_bits: as in `Int8Config`.
        about: its entry under `"functional"`, of a site that is no module in the model's own code.
    """

    static: bool
    activation_bits: int = 8
    about: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class FakeQuantization:
    """How one site is fake-quantized for training.

    Attributes:
        ranges: input to the range that training starts from.
        per_channel, activation_bits: as in `Quantization`.
        learnable: train the scales of activations.
        device: that of the model, for modules without parameters.
    """

    ranges: Mapping[str, Range]
    per_channel: bool
    activation_bits: int
    learnable: bool
    device: torch.device

    def of_input(self, key: str = "input", symmetric: bool = False) -> FakeQuantize:
        """The fake quantizer of one input, on the CPU."""
        return FakeQuantize(self.ranges[key], symmetric, self.activation_bits, self.learnable)


@dataclass(frozen=True)
class RecipeTraits:
    """How a recipe writes and reads the ops that are sites of one kind.

    Attributes:
        ops: their names.
        symmetric_inputs: places of the inputs whose zero point is 0, and what one that has others there is told to write.
        heads_first: whether the inputs are `[batch, heads, length, head]`.
        has_input_qparams: whether the inputs have quantization parameters.
        lists_weight_scales: whether the scales of the weight are written down.
        float_by_default: whether a fresh recipe leaves the ops in FP32.
        mixes_inputs: whether some of the inputs may be quantized and others not.
        rounds_output: whether the result may be rounded.
        optional: whether a recipe may list one more than the model has.
    """

    ops: tuple[str, ...] = ()
    symmetric_inputs: tuple[int, ...] = ()
    symmetric_expected: str = ""
    heads_first: bool = False
    has_input_qparams: bool = True
    lists_weight_scales: bool = True
    float_by_default: bool = False
    mixes_inputs: bool = False
    rounds_output: bool = False
    optional: bool = False


@dataclass(frozen=True)
class RecipeEntry:
    """What a recipe says of one op that is INT8. Quantization parameters are `(scale, zero point on uint8)`.

    Attributes:
        inputs_quantized: of each input.
        inputs: quantization parameters of the inputs.
        output: those of the result, where it is rounded.
        weight_scales: of the weight; empty where the recipe has none.
        per_channel: whether each output channel of the weight has a scale of its own.
    """

    inputs_quantized: Sequence[bool]
    inputs: Sequence[tuple[float, int]]
    output: tuple[float, int] | None = None
    weight_scales: Sequence[float] = ()
    per_channel: bool = True

    def ranges(self, names: Sequence[str]) -> dict[str, Range]:
        """By name of an input, a range close to that of its quantization parameters: it does not give them back exactly."""
        pairs = zip(names, self.inputs, strict=False)
        return {name: (-zero * scale, (255 - zero) * scale) for name, (scale, zero) in pairs}


@dataclass(frozen=True)
class Calibrated:
    """What calibration learned of one site.

    Attributes:
        module: the float module.
        ranges: input to range; a kind may take out those that are better measured at run time.
        tokens: input to what its tokens would lose by a range; empty where they were not counted.
        max_lost_bits: as in `Int8Config`; None where tokens are not spared.
    """

    module: Any
    ranges: dict[str, Range]
    tokens: Mapping[str, TokenRanges]
    max_lost_bits: float | None


@dataclass(frozen=True)
class Verdict:
    """What a kind makes of what calibration learned of one site.

    Attributes:
        per_token: the site measures a range per token.
        reason: why it stays FP32; empty where it does not.
        note: what `config.json` says of it under the name of its kind; empty where nothing.
    """

    per_token: bool = False
    reason: str = ""
    note: str = ""
