"""Making first calls ahead of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from .errors import ConfigError
from .evaluation.architectures import example_inputs

M = TypeVar("M", bound=nn.Module)

_NEW_TOKENS = 3
"""The prompt, the first step and a later one: each is a kind of call of its own."""


def warmup(model: M, shapes: Mapping[str, Any] | Sequence[tuple[int, int] | Mapping[str, Any]]) -> M:
    """Run a model once on each kind of call that it will get, so that none of these is slow later: a server does it before it listens.

    A first call compiles the model's blocks, which takes seconds. What was compiled serves other sizes too, so that one shape is enough for
    calls with the same arguments; a batch or a length of 1 is compared once more where it first comes, and costs little.

    Args:
        model: in eval mode. One that generates text also generates a few tokens.
        shapes: `(batch, length)` for calls with random tokens, without padding and with (images ignore the length), or the inputs of a call, such
            as a tokenizer gives them: for a model that is not a Transformers one, and for calls with other arguments. One dictionary alone is
            one call.

    Returns:
        The model.

    Raises:
        ConfigError: a shape is no pair of positive numbers, or longer than the model takes; the model trains; its inputs are not known.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from optimum_int8 import Int8Config, quantize, warmup
        >>> config = BertConfig(
        ...     vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ... )
        >>> model = quantize(BertModel(config).eval(), Int8Config(approach="dynamic"), progress=False)
        >>> warmup(model, [(1, 16), (8, 64)]) is model
        True
    """
    if model.training:
        raise ConfigError(
            "the model is in training mode, in which nothing is compiled; call model.eval() before warmup"
        )
    calls = [shapes] if isinstance(shapes, Mapping) else list(shapes)
    given = [call if isinstance(call, Mapping) else _pair(call) for call in calls]
    with torch.no_grad():
        for call in given:
            if isinstance(call, Mapping):
                model(**call)
            else:
                _run(_transformer(model), *call)
    return model


def _pair(shape: Any) -> tuple[int, int]:
    pair = tuple(shape) if isinstance(shape, (tuple, list)) else ()
    if len(pair) != 2 or not all(type(size) is int and size > 0 for size in pair):
        raise ConfigError(
            f"a shape is {shape!r}; expected (batch, length), two positive integers, or a dictionary of inputs"
        )
    return pair


def _transformer(model: nn.Module) -> PreTrainedModel:
    """The model itself, or the one inside (Sentence Transformers)."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ConfigError(
        f"the inputs of a {type(model).__name__} are not known; give dictionaries of inputs in place of (batch, length)"
    )


def _run(model: PreTrainedModel, batch: int, length: int) -> None:
    inputs = example_inputs(model, batch, length)
    _call(model, inputs, length)
    if batch > 1 and length > 1 and "attention_mask" in inputs:  # of a full mask, Transformers makes none
        inputs["attention_mask"][0, 0] = 0
        _call(model, inputs, length)


def _call(model: PreTrainedModel, inputs: dict[str, torch.Tensor], length: int) -> None:
    model(**inputs)
    if "input_ids" not in inputs or not model.can_generate():
        return
    prompt = {name: x for name, x in inputs.items() if name != "decoder_input_ids"}
    limit = getattr(model.config, "max_position_embeddings", None)
    new = _NEW_TOKENS if limit is None or model.config.is_encoder_decoder else min(_NEW_TOKENS, limit - length)
    if new > 0:
        model.generate(**prompt, do_sample=False, max_new_tokens=new, min_new_tokens=new)
