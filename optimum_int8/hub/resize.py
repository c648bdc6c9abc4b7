"""Transformers' methods that resize, tie and replace embeddings and heads, taught INT8 modules.

`resize_token_embeddings` of a model, which many classes extend, ends in `_get_resized_embeddings`, `_get_resized_lm_head` and
`tie_weights` of `PreTrainedModel`. `registration` gives these three a case for INT8 modules: a float table goes through
Transformers' own code, which draws the new rows, and only these are quantized. All else runs as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..nn import Int8Embedding, Int8Linear, Int8Module


def _resized_embeddings(
    original: Callable[..., Any], self: PreTrainedModel, old_embeddings: nn.Module, *args: Any, **kwargs: Any
) -> nn.Module:
    old = old_embeddings
    if not isinstance(old, Int8Embedding):
        return original(self, old, *args, **kwargs)
    table = nn.Embedding.from_pretrained(old.dequantize(), padding_idx=old.padding_idx)
    new = original(self, table, *args, **kwargs)
    if len(new.weight) == len(old.quantized_weight()):
        return old
    sharing = list(_sharing(self, old))
    old.resize(new.weight.detach())
    old.padding_idx = new.padding_idx
    for module in sharing:
        if isinstance(module, Int8Linear):
            module.assign(old.quantized_weight(), old.weight_scale, old)
        else:
            module.share(old)
    return old


def _sharing(model: nn.Module, table: Int8Embedding) -> Iterator[Int8Embedding | Int8Linear]:
    """The other modules that read the tensor of `table`: a float table would be one parameter for all of them."""
    address = table.int8_storage().data_ptr()
    for module in model.modules():
        if module is table or not isinstance(module, (Int8Embedding, Int8Linear)):
            continue
        if module.int8_storage().data_ptr() == address:
            yield module


def _resized_head(
    original: Callable[..., Any], self: PreTrainedModel, old_lm_head: nn.Module, *args: Any, **kwargs: Any
) -> nn.Module:
    old = old_lm_head
    if not isinstance(old, Int8Linear) or old.transposed:
        return original(self, old, *args, **kwargs)
    weight = old.dequantize()
    bias = old.bias
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    head.weight = nn.Parameter(weight, requires_grad=False)
    head.bias = bias
    new = original(self, head, *args, **kwargs)
    if new.weight.shape != weight.shape:
        old.resize(new.weight.detach(), new.bias)
        for parent in self.modules():  # RoBERTa keeps the bias of its head next to it too
            own = parent._parameters.get("bias")
            if own is not None and bias is not None and own.shape == bias.shape and old in parent.children():
                parent.bias = old.bias
    return old


def _tie_weights(
    original: Callable[..., Any],
    self: PreTrainedModel,
    missing_keys: set[str] | None = None,
    recompute_mapping: bool = True,
) -> None:
    if not any(isinstance(module, Int8Module) for module in self.modules()):
        return original(self, missing_keys=missing_keys, recompute_mapping=recompute_mapping)
    known = self.all_tied_weights_keys
    mapping = _mapping(self) if recompute_mapping else known
    ours = {to: source for to, source in mapping.items() if _is_int8(self, to) or _is_int8(self, source)}
    self.all_tied_weights_keys = {to: source for to, source in mapping.items() if to not in ours}
    try:
        original(self, missing_keys=missing_keys, recompute_mapping=False)
    finally:
        untied = mapping.keys() - self.all_tied_weights_keys.keys() - ours.keys()
        self.all_tied_weights_keys = {to: source for to, source in known.items() if to not in untied}
    for to, source in ours.items():
        tie(self, to, source)


def _mapping(model: PreTrainedModel) -> dict[str, str]:
    """What the classes say is tied, or what they said when the model was float: patterns may look for names of parameters."""
    try:
        found: dict[str, str] = model.get_expanded_tied_weights_keys(all_submodels=True)
    except ValueError:
        found = model.all_tied_weights_keys
    return found


def _is_int8(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), Int8Module)


def tie(model: nn.Module, target: str, source: str) -> None:
    """Give an INT8 module the weight or the bias of another one, where it has other values.

    Of a float and an INT8 weight each keeps its own values, as quantization left them.
    """
    path, _, leaf = target.rpartition(".")
    to = model.get_submodule(path)
    origin = model.get_submodule(source.rpartition(".")[0])
    if leaf == "bias":
        _tie_bias(to, origin, source.rpartition(".")[2])
    elif isinstance(to, Int8Linear | Int8Embedding) and isinstance(origin, Int8Linear | Int8Embedding):
        _tie_weight(to, origin)


def _tie_bias(to: nn.Module, origin: nn.Module, name: str) -> None:
    """The source of a tie may be a parameter next to the resized linear (`lm_head.bias` of RoBERTa): it takes the new size."""
    value: Any = getattr(origin, name)
    own: Any = to.bias
    if value is None or own is None or value.data_ptr() == own.data_ptr():
        return
    if value.shape != own.shape:
        setattr(origin, name, own)
    else:
        to.bias = value


def _tie_weight(to: Int8Linear | Int8Embedding, origin: Int8Linear | Int8Embedding) -> None:
    if to.int8_storage().data_ptr() == origin.int8_storage().data_ptr():
        return
    q = origin.quantized_weight()
    scale = origin.weight_scale
    if isinstance(to, Int8Embedding):
        to.assign(q, scale)
    elif isinstance(origin, Int8Embedding):
        to.assign(q, scale, origin)
    elif not (torch.equal(to.quantized_weight(), q) and torch.equal(to.weight_scale, scale)):
        to.assign(q, scale)


CASES: dict[str, Callable[..., Any]] = {
    "_get_resized_embeddings": _resized_embeddings,
    "_get_resized_lm_head": _resized_head,
    "tie_weights": _tie_weights,
}
"""Name of a method of `PreTrainedModel` to what `registration` calls in its place, with the method as the first argument."""
