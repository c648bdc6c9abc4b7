"""Conditions on sizes as data: nested lists of JSON, of a closed set of operators, which are interpreted and never evaluated as code.

`["<=", ["*", ["size", 0], 2], 20]` says that twice the first size is at most 20.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Expression = Any
"""A number, `["size", k]`, or a list of an operator's name and its operands."""

SIZE = "size"
_DEEPEST = 32
_MOST = 256
"""Operands of one operator: torch writes sums and products of a few sizes."""
_POWERS = range(-4, 9)

OPERATORS: dict[str, Callable[..., Any]] = {
    "+": lambda *terms: sum(terms),
    "*": lambda *factors: math.prod(factors),
    "**": operator.pow,
    "//": operator.floordiv,
    "/": operator.truediv,
    "%": operator.mod,
    "max": max,
    "min": min,
    "abs": abs,
    "int": math.trunc,
    "floor": math.floor,
    "ceil": math.ceil,
    "float": float,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "and": lambda *terms: all(terms),
    "or": lambda *terms: any(terms),
    "not": operator.not_,
}

_MANY = ("+", "*", "max", "min", "and", "or")
_ONE = ("abs", "int", "floor", "ceil", "float", "not")

_OF_SYMPY = {
    "Add": "+",
    "Mul": "*",
    "Pow": "**",
    "PowByNatural": "**",
    "FloorDiv": "//",
    "CleanDiv": "//",
    "IntTrueDiv": "/",
    "FloatTrueDiv": "/",
    "Mod": "%",
    "PythonMod": "%",
    "Max": "max",
    "Min": "min",
    "Abs": "abs",
    "TruncToInt": "int",
    "FloorToInt": "floor",
    "CeilToInt": "ceil",
    "ToFloat": "float",
    "StrictLessThan": "<",
    "LessThan": "<=",
    "StrictGreaterThan": ">",
    "GreaterThan": ">=",
    "Equality": "==",
    "Unequality": "!=",
    "And": "and",
    "Or": "or",
    "Not": "not",
}


class Inexpressible(Exception):
    """A condition that no expression of ours says."""


def of_sympy(condition: Any, places: Mapping[Any, int]) -> Expression:
    """A condition of torch as data; `places` numbers its symbols.

    Raises:
        Inexpressible: it has an operator or a symbol that is not known.
    """
    if condition in places:
        return [SIZE, places[condition]]
    if condition.is_Integer or condition in (True, False):
        return int(condition)
    if condition.is_Float:
        return float(condition)
    if condition.is_Rational:
        return ["/", int(condition.p), int(condition.q)]
    name = _OF_SYMPY.get(type(condition).__name__)
    if name is None:
        raise Inexpressible(f"the condition {condition} on sizes cannot be stored")
    found = [name, *(of_sympy(operand, places) for operand in condition.args)]
    if not is_expression(found, len(places)):
        raise Inexpressible(f"the condition {condition} on sizes cannot be stored")
    return found


def is_expression(value: Any, sizes: int, depth: int = 0) -> bool:
    """Whether a value of JSON is an expression over so many sizes."""
    if type(value) in (int, float):
        return math.isfinite(value)
    if type(value) is not list or not 1 < len(value) <= _MOST or depth > _DEEPEST:
        return False
    name, *operands = value
    if name == SIZE:
        return len(operands) == 1 and type(operands[0]) is int and 0 <= operands[0] < sizes
    if type(name) is not str or name not in OPERATORS:
        return False
    if name not in _MANY and len(operands) != (1 if name in _ONE else 2):
        return False
    if name == "**" and operands[1] not in _POWERS:
        return False
    return all(is_expression(operand, sizes, depth + 1) for operand in operands)


def value_of(expression: Expression, sizes: Sequence[int]) -> Any:
    """What an expression is for these sizes."""
    if type(expression) is not list:
        return expression
    name, *operands = expression
    if name == SIZE:
        return sizes[operands[0]]
    return OPERATORS[name](*[value_of(operand, sizes) for operand in operands])


def text_of(expression: Expression, names: Sequence[str]) -> str:
    """An expression for a reader."""
    if type(expression) is not list:
        return str(expression)
    name, *operands = expression
    if name == SIZE:
        return names[operands[0]]
    parts = [text_of(operand, names) for operand in operands]
    if name in ("max", "min", *_ONE):
        return f"{name}({', '.join(parts)})"
    inner = [f"({part})" if " " in part and part[-1] != ")" else part for part in parts]
    return f" {name} ".join(inner)
