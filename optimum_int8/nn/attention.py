"""The attention core on INT8 (and in float32 where it is not), plugged into Transformers through its attention interface.

A Transformers attention module asks `ALL_ATTENTION_FUNCTIONS[config._attn_implementation]` for its core and hands itself over, so
the core can find the scales of that module: its child `int8_attention`. A module without that child gets the float32 kernel.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.integrations.sdpa_attention import create_position_bias_mask, sdpa_attention_forward

from .. import numerics
from .base import Int8Module
from .core_caller import CoreCaller
from .eager import (
    float_mask,
    register_core,
    run_eager,
    unknown_argument,
    wants_weights,
    warn_without_weights,
)
from .gradient import straight_through, wants_gradients
from .masks import int8_mask

IMPLEMENTATION = "optimum_int8"
"""Name in Transformers' attention interface: `model.set_attn_implementation(IMPLEMENTATION)`."""

CHILD = "int8_attention"
"""Name under which an attention module holds its `Int8Attention`."""


class Int8Attention(Int8Module):
    """Scales of one attention core; stored when static: `query_scale`, `key_scale`, `value_scale`, float32 `[]`.

    `activation_bits` below 8 clips queries, keys and values to as many levels; probabilities keep 256.
    """

    query_scale: Tensor | None
    key_scale: Tensor | None
    value_scale: Tensor | None

    def __init__(self, static: bool = True, activation_bits: int = 8) -> None:
        super().__init__()
        self.activation_bits = activation_bits
        self._qparam_buffers(("query_scale", "key_scale", "value_scale"), static)

    @classmethod
    def from_ranges(cls, ranges: Mapping[str, tuple[float, float]] | None, activation_bits: int = 8) -> Int8Attention:
        """From the ranges of `query`, `key` and `value`; None makes it dynamic."""
        new = cls(ranges is not None, activation_bits)
        for name, (low, high) in (ranges or {}).items():
            scale = numerics.choose_symmetric_scale(max(abs(low), abs(high)), activation_bits)
            setattr(new, f"{name}_scale", torch.tensor(scale))
        return new

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, causal: bool
    ) -> Tensor:
        """float `[batch, heads, length, head]` to `[batch, length, heads, head]`, in query's dtype. The gradient is that of the float core."""
        if wants_gradients(query, key, value, mask):
            compute = functools.partial(self._compute, scaling=scaling, causal=causal)
            reference = functools.partial(_in_float, scaling=scaling, causal=causal)
            return straight_through(compute, reference, query, key, value, mask)
        return self._compute(query, key, value, mask, scaling, causal)

    def _compute(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, causal: bool
    ) -> Tensor:
        scales = (self.query_scale, self.key_scale, self.value_scale)
        if self.activation_bits < 8:
            query, key, value = (self._clip(x, s) for x, s in zip((query, key, value), scales, strict=True))
        return torch.ops.optimum_int8.attention(query, key, value, *scales, mask, scaling, causal).to(query.dtype)

    def _clip(self, x: Tensor, scale: Tensor | None) -> Tensor:
        assert scale is not None  # fewer bits are static
        limit = scale * float(numerics.affine_max(self.activation_bits) // 2)
        return x.clamp(-limit, limit)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return "dynamic" if self.query_scale is None else "static"


def _in_float(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, causal: bool) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    out = functional.scaled_dot_product_attention(
        query, key, value, mask, is_causal=causal, scale=scaling, enable_gqa=grouped
    )
    return out.transpose(1, 2)


def uses_attention_interface(module: nn.Module) -> bool:
    """Whether the module's `forward` asks Transformers' attention interface for its core."""
    if isinstance(module, CoreCaller):
        return True
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)  # decorators of deprecated arguments
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def is_causal_call(module: nn.Module, query: Tensor, mask: Tensor | None, is_causal: bool | None) -> bool:
    """As Transformers' SDPA decides it: only without a mask, and for more than one query."""
    wanted = getattr(module, "is_causal", True) if is_causal is None else is_causal
    return bool(wanted) and mask is None and query.shape[2] > 1


def int8_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Transformers' attention interface: INT8 where `module` has scales for it, float32 elsewhere, torch's attention for what the
    kernels do not know (dropout, gradients, values of another width), and the module's own eager function for what torch's does not
    (sinks, caps: see `unknown_argument`)."""
    if unknown_argument(module, kwargs):
        given = core_arguments(module, query, key, value, attention_mask, None, scaling, is_causal)
        query, key, value, attention_mask, scaling, causal = given
        if position_bias is not None:
            kwargs["position_bias"] = position_bias[..., : key.shape[2]]
        mask = float_mask(query, key, attention_mask, causal)
        return run_eager(module, query, key, value, mask, dropout, scaling, **kwargs)
    if kwargs.get("output_attentions"):
        warn_without_weights()
    core = module._modules.get(CHILD) or (None if wants_gradients(query, key, value) else float32_attention)
    if core is None or dropout or key.shape[-1] != value.shape[-1]:
        settings = (attention_mask, dropout, scaling, is_causal)
        return sdpa_attention_forward(module, query, key, value, *settings, position_bias=position_bias, **kwargs)
    given = core_arguments(module, query, key, value, attention_mask, position_bias, scaling, is_causal)
    return core(*given), None


def int8_eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """As `int8_attention_forward`, for a part of a model that runs eager in FP32, and gets eager's masks: INT8 where `module` has scales
    for it; its own eager function elsewhere, and in calls that ask for attentions."""
    core = module._modules.get(CHILD)
    if (
        core is None
        or dropout
        or wants_weights(kwargs)
        or not fits_eager_core(module, key, value, attention_mask, kwargs)
    ):
        if position_bias is not None:
            kwargs["position_bias"] = position_bias
        return run_eager(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    return core(*core_arguments(module, query, key, value, attention_mask, position_bias, scaling, False)), None


def float32_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    causal: bool,
    bfloat16: bool = False,
) -> Tensor:
    """A core in float32, or on operands rounded to bfloat16, of `Int8Attention`'s arguments and result; see `numerics.float_attention`."""
    return torch.ops.optimum_int8.float_attention(query, key, value, bfloat16, mask, scaling, causal).to(query.dtype)


def fits_eager_core(module: nn.Module, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
    """Whether a call with an eager mask is one that a core knows: floats to add, for these keys, and no argument beyond those known."""
    if key.shape[-1] != value.shape[-1] or unknown_argument(module, kwargs):
        return False
    return mask is None or (mask.is_floating_point() and mask.shape[-1] in (1, key.shape[2]))


def core_arguments(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None,
    scaling: float | None,
    is_causal: bool | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float, bool]:
    """The arguments of a core from those of the interface: query, key, value, mask, scaling, causal."""
    causal = is_causal_call(module, query, attention_mask, is_causal)
    if causal and key.shape[2] > query.shape[2]:
        # Without a mask, query 0 is at key 0: the keys after the last query are the unused end of a static cache.
        key, value = (x[:, :, : query.shape[2]] for x in (key, value))
        position_bias = None if position_bias is None else position_bias[..., : query.shape[2]]
    if position_bias is not None:
        attention_mask = create_position_bias_mask(position_bias, attention_mask, causal, query, key)
        causal = False
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return query, key, value, attention_mask, float(scaling), causal


register_core(IMPLEMENTATION, int8_attention_forward, int8_eager_attention_forward, int8_mask)
