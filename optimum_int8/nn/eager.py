"""Attention of Transformers models beyond our cores: their own eager functions, the masks these take, and which calls need them.

Transformers' `sdpa` function and an eager one compute the same where both apply, from different masks: boolean, or none where causality
goes without saying, for the first; floats to add, and never none where something is hidden, for the second. A part of a model that runs
eager in FP32 keeps masks of that kind under INT8 cores too: nothing then depends on an `is_causal` that its code never set.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import output_capturing

from ..errors import QuantizationError

logger = logging.getLogger(__name__)

EAGER = "eager"
"""Transformers' name for a model's own function."""

_SUFFIX = "_eager"

KNOWN = frozenset(
    ("query", "key", "value", "attention_mask", "dropout", "scaling", "is_causal", "position_bias")  # arguments of ours
    + ("sliding_window", "position_ids", "deterministic")  # said to flash attention; a mask says it to all others
    + ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
    + (
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "use_cache",
        "cache_position",
    )  # about what a model returns
)
"""Arguments of the attention interface that a core takes, or that change nothing of its result."""

_SPECIAL = frozenset(("softcap", "s_aux", "sinks", "cache", "indices", "block_indices"))
"""Arguments that always matter: logit caps, sinks, paged caches, keys chosen per query."""

_warned: set[str] = set()


class EagerName(str):
    """The name in Transformers' interface of an implementation's form for parts that run eager in FP32.

    Code that asks a configuration whether it is `"eager"` is told so: it makes masks of that kind, and lets `output_attentions` be set
    and saved. Looked up in the interface it is a name of its own.
    """

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True or str.__eq__(EAGER, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # in Python, so that dynamo can trace it
        return hash(str(self))


def eager_name(implementation: str) -> EagerName:
    """See `EagerName`."""
    return EagerName(implementation + _SUFFIX)


def is_eager(implementation: str | None) -> bool:
    """Whether a name is of that form, or a model's own function."""
    return implementation is None or implementation == EAGER or implementation.endswith(_SUFFIX)


def register_core(
    implementation: str, function: Callable[..., Any], eager: Callable[..., Any], mask: Callable[..., Any]
) -> None:
    """Make an implementation and its eager form known to Transformers."""
    ALL_ATTENTION_FUNCTIONS.register(implementation, function)
    ALL_MASK_ATTENTION_FUNCTIONS.register(implementation, mask)
    ALL_ATTENTION_FUNCTIONS.register(eager_name(implementation), eager)
    ALL_MASK_ATTENTION_FUNCTIONS.register(eager_name(implementation), ALL_MASK_ATTENTION_FUNCTIONS[EAGER])


def eager_function(module: nn.Module) -> Callable[..., Any] | None:
    """The function that the module's `forward` runs as `eager`: it hands it to the attention interface as the default."""
    forward = inspect.unwrap(type(module).forward)
    names = getattr(getattr(forward, "__code__", None), "co_names", ())
    scope = getattr(forward, "__globals__", {})
    for name in names:
        if "eager" in name and callable(scope.get(name)):
            return scope[name]
    return getattr(sys.modules.get(type(module).__module__), "eager_attention_forward", None)


def unknown_argument(module: nn.Module, kwargs: Mapping[str, Any]) -> str | None:
    """Name of the first argument of a call that a core does not know and that may change its result.

    What a model's function neither names nor is known for is passed through to it by way of `**kwargs` alone, and changes nothing.
    """
    unknown = [name for name, value in kwargs.items() if value is not None and name not in KNOWN]
    if not unknown:
        return None
    function = eager_function(module)
    if function is None:
        return unknown[0]
    parameters = inspect.signature(function).parameters
    return next((name for name in unknown if name in _SPECIAL or name in parameters), None)


def run_eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The module's own eager function, on a mask of its kind.

    Raises:
        QuantizationError: the module has none; what the call asks for is unknown then.
    """
    function = eager_function(module)
    if function is None:
        name = unknown_argument(module, kwargs)
        asked = f"is called with {name!r}" if name else "is asked for its weights"
        raise QuantizationError(
            f"the attention of a {type(module).__name__} {asked}, which the cores of optimum_int8 do not know, and its file has no "
            f'eager_attention_forward to run instead; call model.set_attn_implementation("sdpa"), or what the FP32 model ran'
        )
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    return function(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)


def float_mask(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """The mask of an eager function, floats to add, from what the `sdpa` function is given."""
    if mask is None and causal:
        rows = torch.arange(query.shape[2], device=query.device)[:, None]
        mask = (rows >= torch.arange(key.shape[2], device=query.device))[None, None]
    if mask is None or mask.dtype != torch.bool:
        return mask
    zero = torch.zeros((), device=query.device, dtype=query.dtype)
    return torch.where(mask, zero, torch.finfo(query.dtype).min)


def wants_weights(kwargs: Mapping[str, Any]) -> bool:
    """Whether the call now running is to return its attentions: the model says so to each module, or collects them by hooks."""
    if kwargs.get("output_attentions"):
        return True
    collected = output_capturing._active_collector.get()
    return bool(collected) and any(name.endswith("attentions") for name in collected)


def warn_without_weights() -> None:
    """Say once, as Transformers' `sdpa` does, that no attentions come back, and how they do."""
    if not _warned:
        _warned.add("weights")
        logger.warning(
            "INT8 attention does not hold the weights that output_attentions=True asks for, and returns None as sdpa does. For real "
            'ones load or quantize the model with attn_implementation="eager": calls that ask for them then compute attention in float'
        )
