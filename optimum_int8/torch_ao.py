"""`quantize_dynamic` with the arguments of `torch.ao.quantization.quantize_dynamic`, which torch has deprecated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .config import Int8Config
from .errors import ConfigError, QuantizationError
from .quantization import quantize
from .sites import KINDS, collect_sites

TYPES = (nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell)
"""What torch.ao quantizes when it is told nothing. An `RNNCell` stays FP32 here."""


def quantize_dynamic(
    model: nn.Module,
    qconfig_spec: Iterable[type[nn.Module] | str] | Mapping[type[nn.Module] | str, Any] | None = None,
    dtype: torch.dtype = torch.qint8,
    mapping: None = None,
    inplace: bool = False,
) -> nn.Module:
    """A model whose modules of some types, or of some names, compute in INT8 with scales measured at run time; all else stays float.

    Args:
        model: any module but one that is itself of these types.
        qconfig_spec: types and names of modules, each with all that is in it. Of a mapping the keys whose value is not None; the values
            themselves say nothing here. None takes `TYPES`.
        dtype: `torch.qint8`; `torch.quint8` takes embeddings and sums of embeddings when `qconfig_spec` is None.
        mapping: None.
        inplace: convert `model` itself instead of a copy.

    Raises:
        ConfigError: `torch.float16`, or a `mapping`.
        QuantizationError: nothing of the model is of these types or names, or can become INT8.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 8))
        >>> type(quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)[0]).__name__
        'Int8Linear'
    """
    if dtype not in (torch.qint8, torch.quint8):
        raise ConfigError(f"dtype {dtype} is not INT8; expected torch.qint8 (for float16, use model.half())")
    if mapping is not None:
        raise ConfigError("a mapping to modules of torch.ao has no meaning here; expected None")
    if qconfig_spec is None:
        qconfig_spec = TYPES if dtype == torch.qint8 else (nn.Embedding, nn.EmbeddingBag)
    if isinstance(qconfig_spec, Mapping):
        qconfig_spec = [key for key, value in qconfig_spec.items() if value is not None]
    wanted = list(qconfig_spec)
    types = tuple(key for key in wanted if not isinstance(key, str))
    names = {key for key in wanted if isinstance(key, str)}
    modules = dict(model.named_modules())
    chosen = {name for name, module in modules.items() if type(module) in types or name in names}
    config = Int8Config(approach="dynamic")
    sites = collect_sites(model, config).int8
    left_out: dict[str, list[str]] = {"exclude": [], "exclude_attention": []}
    for name, kind in sites.items():
        if KINDS[kind].excluded_by != "exclude" or not _is_within(name, chosen):
            left_out[KINDS[kind].excluded_by].append(name)
    if all(name in {*left_out["exclude"], *left_out["exclude_attention"]} for name in sites):
        found = ", ".join(sorted(getattr(key, "__name__", str(key)) for key in wanted))
        raise QuantizationError(
            f"{type(model).__name__} has nothing to quantize: no module in it is one of {found} and can become INT8"
        )
    excluded = {key: tuple(value) for key, value in left_out.items()}
    return quantize(model, Int8Config(approach="dynamic", **excluded), inplace=inplace)  # type: ignore[arg-type]


def _is_within(name: str, chosen: set[str]) -> bool:
    """Whether a module, or one that it lies in, is chosen."""
    while name and name not in chosen:
        name = name.rpartition(".")[0]
    return name in chosen
