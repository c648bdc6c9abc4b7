"""What passes ask of a node instead of the name of its operator: its role, how it quantizes, its forms. See `operators/roles.py`."""

from __future__ import annotations

from typing import Any, TypeGuard

from torch import fx

from ..operators import (
    PER_TENSOR,
    QUANTIZATION,
    Appending,
    OnRows,
    Operator,
    Quantizing,
    operator_of,
    operator_with_form,
    parameters,
)
from .rewrite import add_call, named, shape_of


def called(node: Any) -> Operator | None:
    """The operator of ours that `node` calls, None where it does something else."""
    return operator_of(node.target) if isinstance(node, fx.Node) and node.op == "call_function" else None


def has_role(node: Any, *roles: str) -> TypeGuard[fx.Node]:
    """Whether `node` calls an operator of ours with one of the roles."""
    operator = called(node)
    return operator is not None and operator.role in roles


def is_quantization(node: Any, *per: str) -> TypeGuard[fx.Node]:
    """Whether `node` quantizes a value, with a scale for each of what `per` names."""
    operator = called(node)
    return operator is not None and operator.role == QUANTIZATION and operator.per in per


def is_elementwise(node: Any) -> TypeGuard[fx.Node]:
    """Whether `node` calls an operator of ours that works value by value."""
    operator = called(node)
    return operator is not None and operator.elementwise


def broadcasts(node: fx.Node) -> bool:
    """Whether an operator that works value by value has values of different shapes, which programs cannot compute."""
    operator = called(node)
    if operator is None or not operator.elementwise:
        return False
    given = named(node)
    return len({shape_of(given[name]) for name in operator.values}) > 1


def quantize_as(graph_module: fx.GraphModule, node: fx.Node, x: fx.Node) -> fx.Node:
    """A new quantization of `x` at the insertion point, as `node` quantizes."""
    return add_call(graph_module, node.target, **{**named(node), "x": x})


def quantizing_form(node: Any, per: str = PER_TENSOR, keeps_float: bool = False) -> Operator | None:
    """The form of the operator of ours that `node` calls which quantizes the result too, None where there is none."""
    operator = called(node)
    return None if operator is None else operator_with_form(Quantizing(operator.name, per, keeps_float))


def add_quantizing_form(graph_module: fx.GraphModule, form: Operator, source: fx.Node, *qparams: Any) -> fx.Node:
    """A new call of a `Quantizing` form at the insertion point, on the arguments of `source`; `qparams` are the scale and zero point of the
    result, none where it has them per row."""
    given = named(source)
    names = [name for name in parameters(form.overload) if name not in given]
    return add_call(graph_module, form.overload, **given, **dict(zip(names, qparams, strict=True)))


def rows_form(node: Any) -> Operator | None:
    """The form on rows of the attention core on heads that `node` calls, None where there is none."""
    operator = called(node)
    return None if operator is None else operator_with_form(OnRows(operator.name))


def appending_form(node: Any) -> Operator | None:
    """The form of the attention core on rows that `node` calls which appends to a cache first, None where there is none."""
    operator = called(node)
    return None if operator is None else operator_with_form(Appending(operator.name))
