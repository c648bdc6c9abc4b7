"""What has weights and no INT8 form: the reason, for reports."""

from __future__ import annotations

from collections.abc import Container

from torch import nn

from ..config import Int8Config
from ..nn.slot import WeightSlot

REASONS: dict[tuple[type[nn.Module], ...], str] = {
    (nn.RNN, nn.RNNCell): "recurrent layers without gates have no INT8 form; use LSTM or GRU",
    (nn.RNNBase, nn.RNNCellBase): "a recurrent layer that was not quantized",
    (nn.EmbeddingBag,): "a table that was not quantized",
    (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): "transposed convolutions have no INT8 form",
    (nn.Bilinear,): "bilinear products have no INT8 form",
}
"""Kinds of torch's layers, subclasses included, that hold matrices and stay FP32."""

TABLE = "a bare parameter that no F.linear, F.conv or product of experts reads"


def float_kind(module: nn.Module) -> str:
    """Why a layer of torch stays FP32, or nothing."""
    return next((reason for kinds, reason in REASONS.items() if isinstance(module, kinds)), "")


def holds_bare_parameters(module: nn.Module) -> bool:
    """Whether the parameters of a module are its author's own: not those of torch's layers, nor what stands for a parameter."""
    container = isinstance(module, (nn.ParameterList, nn.ParameterDict))
    return container or not (type(module).__module__.startswith("torch.nn.") or isinstance(module, WeightSlot))


def float_layers(model: nn.Module, config: Int8Config, known: Container[str] = ()) -> dict[str, str]:
    """By name of each layer that has no INT8 form, the reason; those of `known` left out."""
    found = {}
    outside: dict[str, str] = {}
    for name, module in model.named_modules():
        reason = outside.get(name.rpartition(".")[0], "") if name else ""
        if name in config.exclude:
            reason = "excluded by name"
        elif type(module).__name__ in config.exclude_types:
            reason = f"excluded by type {type(module).__name__}"
        outside[name] = reason
        why = float_kind(module)
        if why and name not in known:
            found[name] = reason or why
    return found
