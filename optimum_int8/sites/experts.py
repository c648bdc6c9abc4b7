"""Stacks of experts' matrices: a parameter `[experts, out, in]`, or `[experts, in, out]`, as one site."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from .. import numerics
from ..config import Int8Config
from ..errors import CheckpointError
from ..nn.experts import FloatExperts, Int8Experts
from .functional.expose_experts import describe_stack, expose_experts
from .functional.source_weights import find_experts
from .kind import SiteKind
from .settings import Calibrated, Quantization, Storage, Verdict

EXPERTS = "experts"

EXPERT_TOKENS = 32
"""Of calibration, that an expert must have seen for a range of its own: one of fewer would clip the next token."""


class ExpertsKind(SiteKind[FloatExperts]):
    """A weight and a range for each expert; an expert without a range measures one per token."""

    name = EXPERTS
    holds_weights = True
    may_lack_ranges = True
    float_in_training = "experts in one parameter stay float in training"

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, FloatExperts)

    def obstacle(self, name: str, module: FloatExperts, config: Int8Config) -> str:
        """Sums that can overflow."""
        inner = module.sizes[2]
        if inner > numerics.MAX_REDUCTION:
            return f"{inner} inputs can overflow int32; at most {numerics.MAX_REDUCTION}"
        return ""

    def rows(self, module: FloatExperts, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """By the number of the expert that a call reaches."""
        x, expert = inputs[:2]
        return {str(expert): x} if x.numel() else {}

    def counts_tokens(self, config: Int8Config) -> bool:
        """Always: `judge` wants to know how many each expert saw."""
        return True

    def judge(self, site: Calibrated) -> Verdict:
        """No range for experts that too few tokens reached, or whose tokens would lose too much by one."""
        limit = site.max_lost_bits
        for key, seen in site.tokens.items():
            if seen.tokens < EXPERT_TOKENS or (limit is not None and seen.lost_bits(*site.ranges[key]) > limit):
                del site.ranges[key]
        total = len(site.module)
        without = total - len(site.ranges)
        return Verdict(note=f"{without} of {total} experts measure a range per token" if without else "")

    def from_float(self, module: FloatExperts, how: Quantization) -> Int8Experts:
        """See `SiteKind`."""
        return Int8Experts.from_float(module, how.ranges, how.per_channel, how.activation_bits)

    def empty(self, module: nn.Module, how: Storage) -> Int8Experts | None:
        """See `SiteKind`."""
        if not isinstance(module, FloatExperts):
            return None
        return Int8Experts(module.sizes, module.transposed, how.static, how.activation_bits, module.dtype)

    def describe(self, model: nn.Module, name: str) -> dict[str, Any] | None:
        """How the matrices lie."""
        return describe_stack(model.get_submodule(name))

    def accepts_description(self, name: str, about: Mapping[str, Any] | None) -> bool:
        """See `SiteKind`."""
        if about is None or about.get("op") != self.name:
            return False
        return set(about) == {"op", "transposed"} and type(about["transposed"]) is bool

    def check_source(self, model: nn.Module, described: Mapping[str, Mapping[str, Any]]) -> None:
        """Stacks lie as the checkpoint says, unless the source of the model says otherwise."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        found = find_experts(model)
        for name, about in described.items():
            if name not in parameters or parameters[name].dim() != 3:
                raise CheckpointError(
                    f"the checkpoint says that {name!r} holds INT8 experts, but the model has no such parameter"
                )
            if found.get(name, about["transposed"]) != about["transposed"]:
                raise CheckpointError(
                    f"the source of the module around {name!r} has changed: its matrices lie the other way round. "
                    "Quantize the model again"
                )

    def expose(self, model: nn.Module, described: Mapping[str, Mapping[str, Any]]) -> None:
        """See `SiteKind`."""
        expose_experts(model, {name: about["transposed"] for name, about in described.items()})

    def has_place(self, place: str, modules: Collection[str], tensors: Collection[str], described: bool) -> bool:
        """The parameter itself."""
        return place in tensors

    def multiply_adds(self, module: FloatExperts, inputs: tuple[Any, ...], output: Tensor) -> int:
        """See `SiteKind`."""
        return output.numel() * inputs[0].shape[-1]
