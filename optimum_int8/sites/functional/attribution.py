"""Whose op it is: the site that a torch function called in a model belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ...config import Int8Config
from ...nn.call_modules import CALLS, fits_call
from ...nn.conv import conv_obstacle
from ...nn.families.multihead import PROJECTIONS, unpacking_obstacle
from ...nn.functional_weight import FUNCTIONAL, functional_module, geometry, weighted_arguments
from ..attention import ATTENTION
from ..collect import collect_sites
from ..pool import POOL, POOLS
from ..registry import recipe_traits
from .call_place import Running, call_name
from .routers import ROUTER, find_routers

WEIGHTED = ("linear", "conv1d", "conv2d", "conv3d", "embedding")
RESIDUAL = ("add", "cat")
"""Sums and concatenations: ops of a recipe where they join activations."""


@dataclass
class Site:
    """One op: a module of the model, or a call in a module's own code, which becomes one."""

    name: str
    op: str
    weight: Tensor | None = None
    why_not: str = ""
    functional: dict[str, Any] | None = None  # of a functional op: see `expose`
    parameter: nn.Parameter | None = None  # that a functional op reads

    @property
    def quantized(self) -> bool:
        """Whether a fresh recipe quantizes it."""
        return not self.why_not and not recipe_traits(self.op).float_by_default


Found = list[tuple[Site, list[Tensor]]]
"""Sites with the tensors that flow into each."""


@dataclass
class ModelSites:
    """The sites of one model, found as its ops are traced."""

    model: nn.Module
    names: dict[nn.Module, str] = field(init=False)
    kinds: dict[str, str] = field(init=False)
    reasons: dict[str, str] = field(init=False)
    parameters: dict[int, str] = field(init=False)
    routers: set[str] = field(init=False)
    read: set[int] = field(default_factory=set)
    """Parameters, by `id`, that another function than that of their site has read."""

    def __post_init__(self) -> None:
        found = collect_sites(self.model, Int8Config(approach="static"))
        self.names = {module: name for name, module in self.model.named_modules()}
        self.kinds = found.int8
        self.reasons = found.fp32
        self.parameters = {id(p): name for name, p in self.model.named_parameters()}
        self.routers = find_routers(self.model)

    def note_reads(self, args: Any, found: Found) -> set[int]:
        """Note that a function with these arguments runs, whose sites are `found`; returns, by `id`, the parameters that other functions
        than that of their site read for the first time: such a one cannot be replaced."""
        own = {id(site.parameter) for site, _ in found}
        new = {id(x) for x in args if type(x) is nn.Parameter} - own - self.read
        self.read |= new
        return new

    def find(self, op: str, func: Any, args: Any, kwargs: Any, now: Running) -> Found:
        """The sites that a call belongs to; empty where it is none."""
        module = now.modules[-1]
        name = self.names.get(module)
        if name is None:
            return []
        operands = _operands(op, func, args, kwargs)
        if type(module) is nn.MultiheadAttention:
            return _packed(name, module, op, operands)
        if op in WEIGHTED:
            weight = operands[1]
            own = getattr(module, "weight", None)
            if own is not None and weight is own and (name in self.kinds or name in self.reasons):
                return [(Site(name, op, _rows_first(module), self.reasons.get(name, "")), operands[:1])]
            return self._functional(op, func, args, kwargs)
        if op in POOLS:
            return [(Site(name, op), operands[:1])] if self.kinds.get(name) == POOL else []
        if op in CALLS and fits_call(op, args, kwargs) and name == self.names.get(now.owner):  # type: ignore[arg-type]
            if op in RESIDUAL and not _is_residual(op, operands, self.parameters):
                return []
            leaf = call_name(op, now.place, now.lines)
            return [(Site(f"{name}.{leaf}" if name else leaf, op, functional={"op": op}), operands)]
        if op == "attention" and self.kinds.get(name) == ATTENTION:
            return [(Site(name, op), operands)]
        return []

    def _functional(self, op: str, func: Any, args: Any, kwargs: Any) -> Found:
        """A function that reads a parameter of some module."""
        if func is torch.addmm or op not in FUNCTIONAL:
            return []
        x, weight, _, options = weighted_arguments(func, args, kwargs)
        parameter = self.parameters.get(id(weight))
        if (
            parameter is None
            or not isinstance(weight, nn.Parameter)
            or weight.dim() != (2 if op == "linear" else x.dim())
        ):
            return []
        owner = parameter.rpartition(".")[0]
        module = functional_module(op, weight, options)
        why_not = "" if op == "linear" else conv_obstacle(module)  # type: ignore[arg-type]
        if owner in self.kinds or owner in self.reasons or owner == "":
            kind = type(self.model.get_submodule(owner)).__name__
            why_not = f"it reads the weight of a {kind}, which is a site itself" if owner else why_not
        if id(weight) in self.read:
            why_not = READ_OTHERWISE
        if parameter in self.routers:
            why_not = ROUTER
        about = {"op": op}
        if op != "linear":
            about |= dict(zip(("stride", "padding", "dilation", "groups"), geometry(module), strict=True))
        site = Site(f"{parameter}.{op}", op, weight, why_not, about, weight)
        return [(site, [x])]


READ_OTHERWISE = "its weight is read by other functions too"


def _is_residual(op: str, operands: list[Tensor], parameters: dict[int, str]) -> bool:
    """Whether a sum or a concatenation is one of activations: no bias, no position table, no mask."""
    finite = all(bool(torch.isfinite(x).all()) for x in operands)
    same = op == "cat" or operands[0].shape == operands[1].shape
    return finite and same and len(operands) > 1 and not any(id(x) in parameters for x in operands)


def _packed(name: str, module: nn.MultiheadAttention, op: str, operands: list[Tensor]) -> Found:
    """Sites in torch's own attention, named as when it is unpacked. One call may be several projections at once."""
    why_not = unpacking_obstacle(module)
    if op == "attention":
        return [(Site(name, op, why_not=why_not), operands)]
    if op != "linear":
        return []
    x, weight = operands
    prefix = f"{name}." if name else ""
    if weight is module.out_proj.weight:
        return [(Site(f"{prefix}out_proj", op, weight, why_not), [x])]
    for projection in PROJECTIONS:
        if weight is getattr(module, f"{projection}_weight"):
            return [(Site(prefix + projection, op, weight, why_not), [x])]
    first = (weight.storage_offset() - module.in_proj_weight.storage_offset()) // weight.stride(0) // module.embed_dim
    parts = weight.split(module.embed_dim)
    names = PROJECTIONS[first : first + len(parts)]
    return [(Site(prefix + n, op, part, why_not), [x]) for n, part in zip(names, parts, strict=True)]


def _rows_first(module: nn.Module) -> Tensor:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.T if isinstance(module, Conv1D) else weight


def _operands(op: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The tensors that an op reads, weights included, biases not."""
    if op == "cat":
        tensors = args[0] if args else kwargs["tensors"]
        return list(tensors) if isinstance(tensors, Iterable) else []
    first = 1 if func is torch.addmm else 0
    names = {
        "attention": ("query", "key", "value"),
        "matmul": ("input", "other"),
        "add": ("input", "other"),
    }.get(op, ("input", "weight"))
    if func is torch.bmm:
        names = ("input", "mat2")
    values = [*args[first : first + len(names)]]
    return values + [kwargs.get(name) for name in names[len(values) :]]
