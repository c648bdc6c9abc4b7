"""Sites: the modules of a model that can become INT8, and the reasons of those that stay FP32."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn
from torch.nn.utils import parametrize
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .. import numerics
from ..config import Int8Config
from ..errors import QuantizationError
from ..nn.attention import CHILD, uses_attention_interface
from ..nn.call_modules import FloatCall
from ..nn.conv import conv_obstacle
from ..nn.cores import core_obstacles
from ..nn.embedding import embedding_obstacle, tables_read_directly
from ..nn.experts import FloatExperts
from ..nn.functional_weight import FUNCTIONAL
from ..nn.libraries import is_sentence_transformers
from ..nn.linear import float_weight, linear_obstacle
from ..nn.pool import AVERAGES, pool_obstacle
from ..nn.scores import Scores
from .float_modules import float_layers
from .functional.routers import ROUTER, find_routers

LINEAR, CONV, EMBEDDING, ATTENTION = "linear", "conv", "embedding", "attention"
POOL = "pool"
BFLOAT16_ATTENTION = "attention_bfloat16"
SCORES = "scores"
EXPERTS = "experts"
"""A core that `config.attention` sets to bfloat16: it holds no grids and needs no ranges."""

CORES = (ATTENTION, BFLOAT16_ATTENTION)


@dataclass
class Sites:
    """Qualified name to kind (`"linear"`, `"conv"`, `"embedding"`, `"pool"`, `"attention"`, `"attention_bfloat16"`, `"scores"`, `"experts"`, or
    an op of `CALLS`), and qualified name to reason for what stays FP32.

    An attention site is named like the attention module; its core is that module's child `int8_attention`.
    `per_token` names the linears of a static model that measure a range per token at run time, as a dynamic model's do.
    """

    int8: dict[str, str] = field(default_factory=dict)
    fp32: dict[str, str] = field(default_factory=dict)
    per_token: list[str] = field(default_factory=list)

    def of_kind(self, *kinds: str) -> list[str]:
        """Names of the INT8 sites of these kinds."""
        return [name for name, kind in self.int8.items() if kind in kinds]

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
        kind = _kind(module)
        if kind is None:
            continue
        reason = excluded or floats.get(name, "") or _obstacle(name, module, kind, config)
        if reason:
            sites.fp32[name] = reason
        else:
            sites.int8[name] = BFLOAT16_ATTENTION if kind == ATTENTION and config.attention == "bfloat16" else kind
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
    if not sites.of_kind(LINEAR, CONV, EMBEDDING, EXPERTS):
        why = next(iter(sites.fp32.values()), "it has no Linear, Conv1D, Conv1d, Conv2d or Embedding")
        raise QuantizationError(f"{type(model).__name__} has nothing to quantize: {why}")
    if sites.int8.get("", ATTENTION) not in CORES:
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
            if isinstance(child, nn.Embedding) and name in tables_read_directly(type(module)):
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


def _kind(module: nn.Module) -> str | None:
    if isinstance(module, (nn.Linear, Conv1D)):
        return LINEAR
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return CONV
    if isinstance(module, nn.Embedding):
        return EMBEDDING
    if isinstance(module, tuple(AVERAGES)):
        return POOL
    if isinstance(module, FloatCall):
        return module.op
    if isinstance(module, Scores):
        return SCORES
    if isinstance(module, FloatExperts):
        return EXPERTS
    return ATTENTION if uses_attention_interface(module) and CHILD not in module._modules else None


def _computed(module: nn.Module) -> str:
    """Whether a weight follows from other tensors (weight norm): what reads it may be old, and a checkpoint names the others. Nothing if not."""
    for name in ("weight", "bias"):
        if parametrize.is_parametrized(module, name):
            by = ", ".join(type(part).__name__.lstrip("_") for part in module.parametrizations[name])  # type: ignore[index, union-attr]
            return f"its {name} is computed from others by {by}"
    return "" if "weight" in module._parameters else "its weight is computed from others before each call"


def _obstacle(name: str, module: nn.Module, kind: str, config: Int8Config) -> str:
    if kind in (LINEAR, CONV) and (reason := _computed(module)):
        return reason
    if kind == LINEAR:
        inner = float_weight(module).shape[1]
        if inner > numerics.MAX_REDUCTION:
            return f"{inner} inputs can overflow int32; at most {numerics.MAX_REDUCTION}"
        if type(module) not in (nn.Linear, Conv1D):
            return linear_obstacle(module)
    if kind == CONV:
        return conv_obstacle(module)  # type: ignore[arg-type]
    if kind == POOL:
        dynamic = "a dynamic model pools the float values that the range of an image would be taken from"
        return dynamic if config.approach == "dynamic" else pool_obstacle(module)
    if kind == EMBEDDING:
        if not config.quantize_embeddings:
            return "quantize_embeddings is off"
        if name.endswith("attention_bias"):
            return "a small table that is added to attention scores, where an INT8 step is felt"
        return embedding_obstacle(module)  # type: ignore[arg-type]
    if kind == EXPERTS:
        inner = module.sizes[2]  # type: ignore[index, union-attr]
        if inner > numerics.MAX_REDUCTION:
            return f"{inner} inputs can overflow int32; at most {numerics.MAX_REDUCTION}"
        return "experts in one parameter stay float in training" if config.approach == "qat" else ""
    if kind == SCORES and config.approach == "qat":
        return "products with positions stay float in training"
    if kind == SCORES and config.attention != "int8":
        return f"attention is set to {config.attention}"
    if kind == SCORES and name.rpartition(".")[0] in config.exclude_attention:
        return "its core is excluded by name"
    if kind == ATTENTION and config.attention == "float32":
        return f"attention is set to {config.attention}"
    if kind == ATTENTION and name in config.exclude_attention:
        return "its core is excluded by name"
    return ""
