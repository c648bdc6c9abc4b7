"""The kinds of sites by name: `register` adds one, and everything that goes over the sites of a model finds it here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ..config import Int8Config
from .kind import SiteKind
from .settings import RecipeTraits

KINDS: dict[str, SiteKind[Any]] = {}
"""Every kind by name, in the order in which a module is offered to them."""


def register(kind: SiteKind[Any]) -> SiteKind[Any]:
    """Add a kind.

    Raises:
        ValueError: the name, or one of its ops in recipes, is taken.
    """
    taken = sorted({op for other in KINDS.values() for op in other.recipe.ops} & set(kind.recipe.ops))
    if kind.name in KINDS or taken:
        raise ValueError(f"the kind {kind.name!r} or its op {taken} is registered already; expected new names")
    KINDS[kind.name] = kind
    return kind


def kind_of(module: nn.Module, config: Int8Config) -> SiteKind[Any] | None:
    """The kind that a float module is a site of; None where it is none."""
    return next((kind for kind in KINDS.values() if kind.matches(module, config)), None)


def recipe_traits(op: str) -> RecipeTraits:
    """How a recipe writes and reads an op; the defaults for one that is a site of no kind."""
    return next((kind.recipe for kind in KINDS.values() if op in kind.recipe.ops), _NO_SITE)


_NO_SITE = RecipeTraits()


def in_order_of_conversion(names: Iterable[str]) -> list[SiteKind[Any]]:
    """These kinds, those first that others share tensors with."""
    found = {KINDS[name] for name in names}
    return sorted((kind for kind in KINDS.values() if kind in found), key=lambda kind: not kind.shares_weight)
