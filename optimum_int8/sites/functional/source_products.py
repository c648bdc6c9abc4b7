"""Products with a module's own parameters in the source of its class: which are stacks of matrices, and which are one matrix."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn


class _Read(NamedTuple):
    """An expression that is an attribute of `self`: how often it was indexed, and whether its last two axes are exchanged."""

    name: str
    indexed: int = 0
    flipped: bool = False


@functools.cache
def stacked_weights(cls: type[nn.Module]) -> dict[str, bool]:
    """Attributes of a module class whose entries its methods multiply by; see `find_experts`. Empty without source."""
    found: dict[str, set[bool]] = {}
    for base in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        for function in list(vars(base).values()):
            for name, transposed in _products(function) if callable(function) else ():
                found.setdefault(name, set()).add(transposed)
    return {name: ways.pop() for name, ways in found.items() if len(ways) == 1}


@functools.cache
def whole_weights(cls: type[nn.Module]) -> frozenset[str]:
    """Attributes of a module class that its methods hand to `F.linear` as they are: `F.linear(x, self.weight)`."""
    found = set()
    for base in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        for function in list(vars(base).values()):
            for node in ast.walk(source_tree(function)) if callable(function) else ():
                weight, by_linear = second_factor(node)
                is_attribute = isinstance(weight, ast.Attribute) and isinstance(weight.value, ast.Name)
                if by_linear and is_attribute and weight.value.id == "self":  # type: ignore[union-attr]
                    found.add(weight.attr)  # type: ignore[union-attr]
    return frozenset(found)


def source_tree(function: Callable[..., Any]) -> ast.AST:
    """The parsed source of a function; empty where there is none."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError, ValueError):
        return ast.Module([], [])


def _products(function: Callable[..., Any]) -> Iterator[tuple[str, bool]]:
    tree = source_tree(function)
    bound: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            bound.setdefault(node.targets[0].id, []).append(node.value)
    once = {name: values[0] for name, values in bound.items() if len(values) == 1}
    for node in ast.walk(tree):
        weight, by_linear = second_factor(node)
        read = _read(weight, once) if weight is not None else None
        if read is not None and (read.indexed or not by_linear):
            yield read.name, read.flipped == by_linear


def second_factor(node: ast.AST) -> tuple[ast.expr | None, bool]:
    """The second factor of a product, and whether it is one of `F.linear`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        return node.right, False
    if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Attribute, ast.Name)):
        return None, False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
    if called == "linear":
        named = next((word.value for word in node.keywords if word.arg == "weight"), None)
        return (node.args[1] if len(node.args) > 1 else named), True
    if called in ("matmul", "mm", "bmm") and node.args:
        return node.args[-1], False
    return None, False


def _read(node: ast.expr, bound: Mapping[str, ast.expr], depth: int = 0) -> _Read | None:
    if depth > 12:
        return None
    if isinstance(node, ast.Name) and node.id in bound:
        return _read(bound[node.id], bound, depth + 1)
    if isinstance(node, ast.Subscript):
        read = _read(node.value, bound, depth + 1)
        if read is None or isinstance(node.slice, (ast.Slice, ast.Tuple)):
            return read if read is not None and isinstance(node.slice, ast.Slice) else None
        return read._replace(indexed=read.indexed + 1)
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return _Read(node.attr)
        read = _read(node.value, bound, depth + 1) if node.attr in ("T", "mT") else None
        return read and read._replace(flipped=not read.flipped)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _of_method(node, node.func, bound, depth)
    return None


def _of_method(node: ast.Call, method: ast.Attribute, bound: Mapping[str, ast.expr], depth: int) -> _Read | None:
    read = _read(method.value, bound, depth + 1)
    if read is None or method.attr in ("float", "to", "contiguous", "detach"):
        return read
    if method.attr == "t" and not node.args:
        return read._replace(flipped=not read.flipped)
    if method.attr in ("transpose", "swapaxes") and len(node.args) == 2:
        axes = {ast.unparse(axis) for axis in node.args}
        if axes in ({"1", "2"}, {"-1", "-2"}, {"0", "1"}):
            return read._replace(flipped=not read.flipped)
    return None
