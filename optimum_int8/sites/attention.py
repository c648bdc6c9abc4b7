"""Attention cores on INT8: attention modules that ask Transformers' interface for their core, which becomes their child."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..config import Int8Config
from ..nn.attention import CHILD, IMPLEMENTATION, Int8Attention, uses_attention_interface
from ..nn.base import Int8Module
from ..nn.fake import FAKE_CHILD, FAKE_IMPLEMENTATION, FakeQuantize, FakeQuantizedAttention
from ..nn.implementations import set_attention
from .compared_attention import visit_cores
from .kind import SiteKind
from .observed_attention import ATTENTION_INPUTS, observe_cores
from .rows import merge_heads
from .settings import FakeQuantization, Observe, Quantization, RecipeTraits, Storage, Visit

ATTENTION = "attention"


class CoreKind(SiteKind[nn.Module]):
    """What attention cores share: the module stays and gets a child, its inputs are query, key and value."""

    inputs: tuple[str, ...] = ATTENTION_INPUTS
    symmetric = True
    takes_place = False
    excluded_by = "exclude_attention"
    float_in_training = ""

    def rows(self, module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """Of `[batch, heads, length, head]`."""
        return {name: merge_heads(x) for name, x in zip(self.inputs, inputs, strict=True)}

    def output_rows(self, module: nn.Module, output: Tensor) -> Tensor:
        """Of `[batch, length, heads, head]`."""
        return output.flatten(2)

    @contextlib.contextmanager
    def observed(self, model: nn.Module, modules: Sequence[nn.Module], observe: Observe) -> Iterator[None]:
        """See `SiteKind`; calls of the cores, also of other modules."""
        with observe_cores(model, observe):
            yield

    def install(self, model: nn.Module, name: str, new: Int8Module) -> None:
        """As a child of the attention module."""
        model.get_submodule(name).add_module(CHILD, new)

    def activate(self, model: nn.Module) -> None:
        """Attention modules ask for our cores."""
        set_attention(model, IMPLEMENTATION)

    def unfake(self, module: Any) -> None:
        """See `SiteKind`."""
        del module._modules[FAKE_CHILD]

    def activate_fake(self, model: nn.Module) -> None:
        """Attention modules ask for fake-quantized cores."""
        set_attention(model, FAKE_IMPLEMENTATION)

    @contextlib.contextmanager
    def visited(
        self, model: nn.Module, int8: Mapping[str, Int8Module], visit: Visit, instead: Int8Module | None = None
    ) -> Iterator[None]:
        """See `SiteKind`."""
        with visit_cores(model, int8, visit, instead):
            yield

    def multiply_adds(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> int:
        """Queries by keys, and probabilities by values."""
        query, key, _ = inputs
        return 2 * query.numel() * key.shape[2]

    def saved_bytes(self, module: nn.Module, int8: Int8Module) -> int:
        """None: a core has no weight."""
        return 0


class AttentionKind(CoreKind):
    """Query, key and value as INT8 rows."""

    name = ATTENTION
    recipe = RecipeTraits(
        ops=("attention",),
        symmetric_inputs=(0, 1, 2),
        symmetric_expected="int8 for the inputs of attention",
        heads_first=True,
    )

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """Unless `config` sets cores to bfloat16."""
        return config.attention != "bfloat16" and is_core(module)

    def obstacle(self, name: str, module: nn.Module, config: Int8Config) -> str:
        """What `config` says of cores."""
        if config.attention == "float32":
            return f"attention is set to {config.attention}"
        return "its core is excluded by name" if name in config.exclude_attention else ""

    def from_float(self, module: nn.Module, how: Quantization) -> Int8Attention:
        """See `SiteKind`."""
        return Int8Attention.from_ranges(how.ranges, how.activation_bits)

    def empty(self, module: nn.Module, how: Storage) -> Int8Attention | None:
        """See `SiteKind`."""
        return Int8Attention(how.static, how.activation_bits) if uses_attention_interface(module) else None

    def fake(self, module: nn.Module, how: FakeQuantization) -> None:
        """See `SiteKind`."""
        inputs = {key: how.of_input(key, symmetric=True) for key in how.ranges}
        core = FakeQuantizedAttention(**inputs).train(module.training)
        module.add_module(FAKE_CHILD, core.to(how.device))

    def fake_quantizers(self, module: Any) -> dict[str, FakeQuantize]:
        """See `SiteKind`."""
        return dict(module.get_submodule(FAKE_CHILD).named_children())


def is_core(module: nn.Module) -> bool:
    """Whether an attention module asks the interface for its core and has none of ours."""
    return uses_attention_interface(module) and CHILD not in module._modules
