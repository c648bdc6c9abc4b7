"""Sites: the modules of a model that can become INT8, and the reasons of those that stay FP32."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers.modeling_utils import PreTrainedModel

from ..config import Int8Config
from ..errors import QuantizationError
from ..nn.cores import core_obstacles
from ..nn.embedding import tables_read_directly
from ..nn.functional_weight import FUNCTIONAL
from ..nn.libraries import is_sentence_transformers
from .float_modules import float_layers
from .functional.routers import ROUTER, find_routers
from .kind import SiteKind
from .registry import KINDS, in_order_of_conversion, kind_of


@dataclass
class Sites:
    """Qualified name to the name of its kind (a key of `KINDS`), and qualified name to reason for what stays FP32.

    An attention site is named like the attention module; its core is that module's child `int8_attention`.
    `per_token` names the linears of a static model that measure a range per token at run time, as a dynamic model's do.
    """

    int8: dict[str, str] = field(default_factory=dict)
    fp32: dict[str, str] = field(default_factory=dict)
    per_token: list[str] = field(default_factory=list)

    def of_kind(self, *kinds: str) -> list[str]:
        """Names of the INT8 sites of these kinds."""
        return [name for name, kind in self.int8.items() if kind in kinds]

    def kind(self, name: str) -> SiteKind[Any]:
        """The kind of an INT8 site."""
        return KINDS[self.int8[name]]

    def kinds(self) -> list[tuple[str, SiteKind[Any]]]:
        """The INT8 sites with their kinds."""
        return [(name, KINDS[kind]) for name, kind in self.int8.items()]

    def by_kind(self) -> list[tuple[SiteKind[Any], list[str]]]:
        """The kinds that there are, those first whose weights others share, each with its INT8 sites."""
        return [(kind, self.of_kind(kind.name)) for kind in in_order_of_conversion(self.int8.values())]

    def demote(self, name: str, reason: str) -> None:
        """Leave an INT8 site in FP32."""
        del self.int8[name]
        self.fp32[name] = reason
        self.per_token = [other for other in self.per_token if other != name]


def find_sites(model: nn.Module, config: Int8Config, reasons: Mapping[str, str] | None = None) -> Sites:
    """What of `model` becomes INT8 under `config`. A module that several parents share is one site, under its first name.

    Args:
        reasons: of functional ops that are known to stay FP32.

    Raises:
        QuantizationError: an excluded name or class does not exist, or nothing is left to quantize.
    """
    known = {name for name, _ in model.named_modules(remove_duplicate=False)}
    known |= {name for p in bare_parameters(model) for name in (p, *(f"{p}.{op}" for op in FUNCTIONAL))}
    missing = [name for name in config.exclude + config.exclude_attention if name not in known]
    if missing:
        raise QuantizationError(
            f"exclude names a module that the model does not have: {missing[0]!r}; names are exact{_near(missing[0], known)}"
        )
    types = {name for module in model.modules() for name in _type_names(module)}
    for wrong in config.exclude_types:
        if wrong not in types:
            raise QuantizationError(
                f"exclude_types names a class that no module of the model has: {wrong!r}; names are exact{_near(wrong, types)}"
            )
    sites = collect_sites(model, config)
    sites.fp32 |= reasons or {}
    sites.fp32 |= float_layers(model, config, {*sites.int8, *sites.fp32})
    require_sites(model, sites)
    return sites


def collect_sites(model: nn.Module, config: Int8Config) -> Sites:
    """As `find_sites`, for names that exist; there may be nothing to quantize."""
    sites = Sites()
    floats = {**_float_tables(model), **_saved_as_floats(model), **core_obstacles(model)}
    floats |= dict.fromkeys(find_routers(model), ROUTER)
    for name, module, excluded in _walk(model, config):
        kind = kind_of(module, config)
        if kind is None:
            continue
        reason = excluded or floats.get(name, "") or kind.obstacle(name, module, config)
        if not reason and config.approach == "qat":
            reason = kind.float_in_training
        if reason:
            sites.fp32[name] = reason
        else:
            sites.int8[name] = kind.name
    return sites


def bare_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that a function could read as a weight: of modules that are no site, and not torch's own layers, which
    call no such function. A single row is a token or a table of positions, no matrix worth a kernel."""
    sites = collect_sites(model, Int8Config())
    known = {*sites.int8, *sites.fp32}
    found = []
    for name, parameter in model.named_parameters():
        path = name.rpartition(".")[0]
        owner = model.get_submodule(path)
        container = isinstance(owner, (nn.ParameterList, nn.ParameterDict))
        if path in known or (type(owner).__module__.startswith("torch.nn.") and not container):
            continue
        if 2 <= parameter.dim() <= 4 and len(parameter) > 1 and parameter.is_floating_point():
            found.append(name)
    return found


def require_sites(model: nn.Module, sites: Sites) -> None:
    """Raises QuantizationError when no module with a weight is left, or when the only one is the model itself."""
    if not any(kind.holds_weights for _, kind in sites.kinds()):
        why = next(iter(sites.fp32.values()), "it has no Linear, Conv1D, Conv1d, Conv2d or Embedding")
        raise QuantizationError(f"{type(model).__name__} has nothing to quantize: {why}")
    if "" in sites.int8 and sites.kind("").takes_place:
        kind = type(model).__name__
        raise QuantizationError(
            f"the model is a single {kind}, which cannot be replaced; pass torch.nn.Sequential({kind}) instead"
        )


def _walk(model: nn.Module, config: Int8Config) -> Iterator[tuple[str, nn.Module, str]]:
    """Modules with the reason for which they, or what they lie in, are excluded."""
    reasons: dict[str, str] = {}
    for name, module in model.named_modules():
        parent = name.rpartition(".")[0]
        reason = reasons.get(parent, "") if name else ""
        if name in config.exclude:
            reason = "excluded by name"
        elif excluded := [kind for kind in _type_names(module) if kind in config.exclude_types]:
            reason = f"excluded by type {excluded[0]}"
        reasons[name] = reason
        yield name, module, reason


def _type_names(module: nn.Module) -> list[str]:
    """The name of a module's class, and the one that it had before its attention was unpacked."""
    name = type(module).__name__
    return [name, type(module).__bases__[-1].__name__] if name.startswith("Unpacked") else [name]


def _near(wrong: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(wrong, [name for name in known if name], n=3)
    return f"; near it are {', '.join(close)}" if close else ""


def _float_tables(model: nn.Module) -> dict[str, str]:
    """Embeddings that must stay what they are, with the reason: Transformers computes the table instead of storing it (sinusoidal
    positions), or the module around it reads the table without calling it."""
    found: dict[str, str] = {}
    for parent, module in model.named_modules():
        prefix = f"{parent}." if parent else ""
        for key in getattr(module, "_keys_to_ignore_on_save", None) or ():
            found[prefix + key.removesuffix(".weight")] = "its table is computed, not stored"
        for name, child in module.named_children():
            if isinstance(child, nn.Embedding) and name in tables_read_directly(type(module)):  # type: ignore[arg-type]
                found[prefix + name] = f"{type(module).__name__} reads its table without calling it"
    return found


def _saved_as_floats(model: nn.Module) -> dict[str, str]:
    """Modules of Sentence Transformers around its Transformers model, with the reason: each saves and loads its own float weights."""
    found: dict[str, str] = {}
    outer: list[str] = []  # Transformers models, which save themselves
    theirs: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{path}.") for path in outer):
            continue
        if isinstance(module, PreTrainedModel):
            outer.append(name)
        elif is_sentence_transformers(module):
            theirs.append(f"{name}." if name else "")
        elif any(name.startswith(path) for path in theirs):
            found[name] = "Sentence Transformers saves it as floats"
    return found
