"""A captured graph to data; the form is that of `stored_graphs`."""

from __future__ import annotations

import ast
import math
from typing import Any

import torch
from torch import Tensor, fx

from ..deploy.expressions import SIZE
from ..fx import Captured
from ..fx.shapes import Shaped
from ..torch_private import OpOverload
from .stored_graphs import KIND_OF, MAX_CONSTANT_BYTES, NAMES_OF_SCALAR, TAGGED, Unstorable, size_number, target_of


def graph_to_json(captured: Captured) -> dict[str, Any]:
    """A captured graph as data.

    Raises:
        Unstorable: it has an operator, a value or an assumption of a kind that data cannot say, or a large constant.
    """
    if captured.guard is not None and not captured.assumed:
        raise Unstorable("what it assumes of sizes is not known")
    nodes: dict[fx.Node, int] = {}
    entries: list[Any] = []
    constants: list[Any] = []
    for node in captured.graph.nodes:
        if node.op == "get_attr" and not node.users:
            continue
        entries.append(_entry(node, nodes, captured.constants, constants))
        nodes[node] = len(nodes)
    return {
        "image": None if captured.image is None else list(captured.image),
        "rounded": captured.rounded,
        "assumed": [_condition(text) for text in captured.assumed],
        "constants": constants,
        "nodes": entries,
    }


def _entry(node: fx.Node, nodes: dict[fx.Node, int], held: dict[str, Any], constants: list[Any]) -> list[Any]:
    if node.op == "output":
        return ["output", _value(node.args[0], nodes)]
    val = _val(node.meta.get("val"))
    if node.op == "placeholder":
        return ["input", val]
    if node.op == "get_attr" and node.target in held:
        constants.append(_constant(held[str(node.target)]))
        return ["constant", len(constants) - 1, val]
    if node.op == "get_attr":
        return ["tensor", str(node.target), val]
    if node.op != "call_function":
        raise Unstorable(f"a node is a {node.op}")
    kwargs = {name: _value(value, nodes) for name, value in node.kwargs.items()}
    return ["call", _target_name(node.target), _value(list(node.args), nodes), kwargs, val]


def _target_name(target: Any) -> str:
    name = NAMES_OF_SCALAR.get(target) if not isinstance(target, OpOverload) else str(target)
    if name is None or target_of(name) is not target:
        raise Unstorable(f"it calls {target}")
    return name


def _value(value: Any, nodes: dict[fx.Node, int]) -> Any:
    if isinstance(value, fx.Node):
        return {"node": nodes[value]}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, (list, tuple)):
        return [_value(item, nodes) for item in value]
    if isinstance(value, torch.device) and value == torch.device("cpu"):
        return {"device": "cpu"}
    kind = KIND_OF.get(type(value), "")
    name = str(value).removeprefix("torch.")
    if name not in TAGGED.get(kind, {}):
        raise Unstorable(f"an argument is the {type(value).__name__} {value}")
    return {kind: name}


def _val(value: Any) -> Any:
    if isinstance(value, Shaped):
        dtype = str(value.dtype).removeprefix("torch.")
        return {"shape": list(value.shape), "dtype": dtype}
    if isinstance(value, (tuple, list)):
        return [_val(item) for item in value]
    if value is None or type(value) in (bool, int):
        return value
    raise Unstorable(f"a value is a {type(value).__name__}")


def _constant(tensor: Any) -> dict[str, Any]:
    plain = type(tensor) is Tensor or isinstance(tensor, torch.nn.Parameter)
    if not plain or tensor.layout is not torch.strided or tensor.nbytes > MAX_CONSTANT_BYTES:
        raise Unstorable("it holds a tensor of its own that is large, or no plain one")
    dtype = str(tensor.dtype).removeprefix("torch.")
    data = bytes(tensor.detach().contiguous().flatten().view(torch.uint8).tolist())
    return {"dtype": dtype, "shape": list(tensor.shape), "bytes": data.hex()}


_OF_AST: dict[type, str] = {
    ast.Add: "+", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Eq: "==", ast.NotEq: "!=", ast.And: "and", ast.Or: "or",
}  # fmt: skip


def _condition(text: str) -> Any:
    """An assumption that torch.export wrote as Python, as data; sizes are numbered by `size_number`."""
    try:
        return _of_ast(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        raise Unstorable(f"it assumes {text}") from error


def _of_ast(tree: ast.AST) -> Any:
    match tree:
        case ast.Constant(value=int(value)) if type(value) is int:
            return value
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(value=ast.Subscript(value=ast.Name(id="tensors"), slice=first), attr="size")),
            slice=axis,
        ) if isinstance(first, ast.Constant) and isinstance(axis, ast.Constant):  # fmt: skip
            return [SIZE, size_number(int(first.value), int(axis.value))]  # type: ignore[arg-type]
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return ["+", _of_ast(left), ["*", -1, _of_ast(right)]]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OF_AST:
            return [_OF_AST[type(op)], _of_ast(left), _of_ast(right)]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(value))):
            return -value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ["*", -1, _of_ast(operand)]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ["not", _of_ast(operand)]
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OF_AST:
            return [_OF_AST[type(op)], _of_ast(left), _of_ast(right)]
        case ast.BoolOp(op=op, values=values):
            return [_OF_AST[type(op)], *(_of_ast(value) for value in values)]
        case ast.Call(func=ast.Name(id=("max" | "min" | "abs") as name), args=args, keywords=[]):
            return [name, *(_of_ast(argument) for argument in args)]
    raise Unstorable(f"it assumes {ast.unparse(tree)}")
