"""`Choices`: which attributes of a module its code computes a choice with, by `topk` or `argmax`, found in the source.

    logits = self.gate(x)
    weights, chosen = torch.topk(logits.softmax(-1), 2)

chooses with `gate`. Values are followed through names, expressions, methods of the class and functions of its file; the order of statements
does not count. The source is parsed, never run.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .source_products import second_factor, source_tree

CHOOSING = ("topk", "argmax")
"""Functions and methods whose result is a choice."""

_CHOICE = "a choice"
"""Stands among the sources of a value for the result of one of `CHOOSING`."""

_OF_SELF = "self."
"""Before the name of an attribute that was read and not called: a weight, or a list of modules."""

_SIZES = ("shape", "size", "dim", "ndim", "numel", "dtype", "device", "len")
"""What depends on no value."""

_NOTHING: frozenset[str] = frozenset()


def may_choose(cls: type[nn.Module]) -> bool:
    """Whether a class, or a function of its file that it calls, names one of `CHOOSING`: cheap, to be asked first."""
    names = {name for function in methods(cls).values() for name in _names(function)}
    return any(name in names for name in CHOOSING)


def methods(cls: type[nn.Module]) -> dict[str, FunctionType]:
    """The functions of a class and its bases, but for those of torch and of Transformers' base."""
    found: dict[str, FunctionType] = {}
    for base in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        if base is PreTrainedModel or base.__module__.startswith("torch."):
            break
        for name, value in vars(base).items():
            function = inspect.unwrap(value) if callable(value) and not isinstance(value, type) else None
            if isinstance(function, FunctionType):
                found.setdefault(name, function)
    return found


def _names(function: FunctionType) -> set[str]:
    """Global names and attributes in a function, and in the functions of its file that it calls."""
    names = _code_names(function.__code__)
    for name in list(names):
        if other := _of_same_file(function, name):
            names |= _code_names(other.__code__)
    return names


def _code_names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _code_names(constant)
    return names


def _of_same_file(function: FunctionType, name: str) -> FunctionType | None:
    other = function.__globals__.get(name)
    other = inspect.unwrap(other) if callable(other) and not isinstance(other, type) else None
    return other if isinstance(other, FunctionType) and other.__module__ == function.__module__ else None


class Choices:
    """What the code of a module class chooses with.

    Args:
        cls: the class.
        weighted: names of its children that multiply by a weight: what they return comes from them, and no longer from their input.
        parameters: names of its own matrices.

    Attributes:
        chosen_with: names of children, and of the module's own parameters, whose result is chosen from.
        called_by_choice: names of lists of modules, one of which is called with what was chosen, or picked by it.
    """

    def __init__(self, cls: type[nn.Module], weighted: frozenset[str], parameters: frozenset[str]) -> None:
        self.weighted = weighted
        self._known = weighted | parameters
        self.chosen_with: set[str] = set()
        self.called_by_choice: set[str] = set()
        self._methods = methods(cls)
        self._bodies: dict[FunctionType, ast.FunctionDef] = {}
        self._values: dict[tuple[FunctionType, str], frozenset[str]] = {}
        self._changed = True
        for _ in range(8):  # of values that go through many functions, or round a loop
            if not self._changed:
                break
            self._changed = False
            for function in (*self._methods.values(), *list(self._bodies)):
                self._follow(function)

    def _body(self, function: FunctionType) -> ast.FunctionDef | None:
        if function not in self._bodies:
            found = (n for n in ast.walk(source_tree(function)) if isinstance(n, ast.FunctionDef))
            self._bodies[function] = next(found, None) or ast.FunctionDef("", _NO_ARGUMENTS, [], [])
        return self._bodies[function]

    def _follow(self, function: FunctionType) -> None:
        """Note where the values of a function's names come from."""
        for node in ast.walk(self._body(function) or ast.Module([], [])):
            for target, value in _assignments(node):
                self._assign(function, target, value)
            if isinstance(node, ast.Return) and node.value is not None:
                self._note(function, "return", self._sources(function, node.value))
            elif isinstance(node, ast.Call):
                self._sources(function, node)

    def _assign(self, function: FunctionType, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            same = isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts)
            for i, part in enumerate(target.elts):
                self._assign(function, part, value.elts[i] if same else value)  # type: ignore[attr-defined]
            return
        while isinstance(target, (ast.Starred, ast.Subscript)):
            target = target.value
        if isinstance(target, ast.Name):
            self._note(function, target.id, self._sources(function, value))

    def _note(self, function: FunctionType, name: str, sources: frozenset[str]) -> None:
        known = self._values.get((function, name), _NOTHING)
        if not sources <= known:
            self._values[function, name] = known | sources
            self._changed = True

    def _sources(self, function: FunctionType, node: ast.AST) -> frozenset[str]:
        """Where a value comes from: see `_CHOICE` and `_OF_SELF`; else the child or parameter that computed it."""
        if isinstance(node, ast.Name):
            return self._values.get((function, node.id), _NOTHING)
        if isinstance(node, ast.Attribute) and self._is_self(function, node.value):
            return frozenset((_OF_SELF + node.attr,)) if node.attr in self._known else _NOTHING
        if isinstance(node, ast.Attribute) and node.attr in _SIZES:
            return _NOTHING
        if isinstance(node, ast.Subscript):
            return self._item(function, node)
        weight, _ = second_factor(node)
        if weight is not None:
            read = [s.removeprefix(_OF_SELF) for s in self._sources(function, weight) if s.startswith(_OF_SELF)]
            if read:
                return frozenset(read)
        if isinstance(node, ast.Call):
            return self._call(function, node)
        return self._all(function, ast.iter_child_nodes(node))

    def _all(self, function: FunctionType, nodes: Any) -> frozenset[str]:
        return _NOTHING.union(*(self._sources(function, node) for node in nodes))

    def _item(self, function: FunctionType, node: ast.Subscript) -> frozenset[str]:
        """`self.experts[i]` is picked by what `i` comes from; `x[rows]` is a choice where `rows` are."""
        value = self._sources(function, node.value)
        chosen = self._sources(function, node.slice) & {_CHOICE}
        lists = {s for s in value if s.startswith(_OF_SELF)}
        if lists and chosen:
            self.called_by_choice |= {s.removeprefix(_OF_SELF) for s in lists}
        return value if lists else value | chosen

    def _call(self, function: FunctionType, node: ast.Call) -> frozenset[str]:
        arguments = [*node.args, *(word.value for word in node.keywords)]
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name in _SIZES:
            return _NOTHING
        given = self._all(function, arguments)
        if name in CHOOSING:
            owner = called.value if isinstance(called, ast.Attribute) else None
            whole = given | (self._sources(function, owner) if owner is not None else _NOTHING)
            self.chosen_with |= {s for s in whole if s != _CHOICE and not s.startswith(_OF_SELF)}
            return frozenset((_CHOICE,))
        if isinstance(called, ast.Attribute) and self._is_self(function, called.value):
            if name in self._methods:
                return self._enter(function, node, self._methods[name], bound=True)
            return frozenset((name,)) if name in self.weighted else given
        if isinstance(called, ast.Name) and (other := _of_same_file(function, name)):
            return self._enter(function, node, other, bound=False)
        if isinstance(called, (ast.Name, ast.Subscript)):  # one of a list, or a module under another name
            modules = {s.removeprefix(_OF_SELF) for s in self._sources(function, called) if s.startswith(_OF_SELF)}
            if modules & self.weighted:
                if _CHOICE in given:
                    self.called_by_choice |= modules
                return frozenset(modules)
        owner_sources = self._sources(function, called.value) if isinstance(called, ast.Attribute) else _NOTHING
        return given | owner_sources

    def _enter(self, function: FunctionType, node: ast.Call, other: FunctionType, bound: bool) -> frozenset[str]:
        """Hand the arguments of a call to the names of what is called; returns what that returns."""
        body = self._body(other)
        names = [a.arg for a in (*body.args.posonlyargs, *body.args.args)] if body is not None else []
        names = names[1:] if bound and not _is_static(body) else names
        for name, value in zip(names, node.args, strict=False):
            self._note(other, name, self._sources(function, value))
        for word in node.keywords:
            if word.arg is not None:
                self._note(other, word.arg, self._sources(function, word.value))
        return self._values.get((other, "return"), _NOTHING)

    def _is_self(self, function: FunctionType, node: ast.AST) -> bool:
        body = self._body(function)
        first = body.args.args[0].arg if body is not None and body.args.args else ""
        is_method = function in self._methods.values()
        return is_method and isinstance(node, ast.Name) and node.id == first


_NO_ARGUMENTS = ast.arguments([], [], None, [], [], None, [])


def _is_static(body: ast.FunctionDef | None) -> bool:
    decorators = body.decorator_list if body is not None else []
    return any(isinstance(node, ast.Name) and node.id == "staticmethod" for node in decorators)


def _assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Targets and values of a statement or a comprehension; a loop assigns from what it walks."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield target, node.value
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, (ast.For, ast.comprehension)):
        yield node.target, node.iter
