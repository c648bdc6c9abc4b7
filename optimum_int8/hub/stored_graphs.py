"""A captured graph as data: JSON of a closed set of operators and values, which is checked and never evaluated as code.

A graph is a list of nodes, each a list that begins with its kind:

| node | what |
|---|---|
| `["input", val]` | the next tensor of a call |
| `["tensor", name, val]` | a tensor of the block's module |
| `["constant", k, val]` | a tensor that the graph brings along |
| `["call", target, args, kwargs, val]` | an operator |
| `["output", args]` | the results; the last node |

`val` is what passes know of a value: `{"shape": [2, "s0"], "dtype": "float32"}`, a list of such, a plain number, or null.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..deploy.expressions import SIZE, is_expression, value_of
from ..fx import Captured
from ..fx.shapes import Shaped
from ..operators import REGISTRY

MAX_NODES = 100_000
MAX_CONSTANT_BYTES = 1 << 16
_MAX_INTEGER = 1 << 40
_END = (1 << 63) - 1
"""Where a slice ends that goes to the end."""
_DEEPEST = 8
_NAME = re.compile(r"[A-Za-z_0-9]+(\.[A-Za-z_0-9]+){0,63}")
_SYMBOLIC = re.compile(r"[A-Za-z_][\w+*/%(), \-]{0,400}|\([\w+*/%(), \-]{0,400}|\d[\w+*/%(), \-]{0,400}")

_ATEN = """
_assert_tensor_metadata.default abs.default adaptive_avg_pool2d.default add.Scalar add.Tensor add_.Tensor alias.default
arange.default arange.start arange.start_step avg_pool2d.default baddbmm.default batch_norm.default bitwise_and.Tensor
bitwise_not.default bitwise_or.Tensor bmm.default cat.default chunk.default clamp.default clone.default contiguous.default
conv1d.default conv2d.default cos.default cumsum.default detach.default div.Scalar div.Tensor div.Tensor_mode
dropout.default dropout_.default embedding.default eq.Scalar eq.Tensor erf.default exp.default expand.default
expand_as.default flatten.using_ints full.default full_like.default gather.default ge.Scalar ge.Tensor gelu.default
group_norm.default gt.Scalar gt.Tensor hardsigmoid.default hardswish.default hardtanh.default layer_norm.default le.Scalar
le.Tensor leaky_relu.default linear.default log.default logical_and.default logical_not.default logical_or.default lt.Scalar
lt.Tensor masked_fill.Scalar masked_fill.Tensor matmul.default max_pool2d.default maximum.default mean.dim min.other
minimum.default mul.Scalar mul.Tensor mul_.Tensor ne.Scalar ne.Tensor neg.default ones.default ones_like.default pad.default
permute.default pow.Tensor_Scalar reciprocal.default relu.default relu_.default reshape.default rms_norm.default
rsqrt.default rsub.Scalar scaled_dot_product_attention.default select.int sigmoid.default silu.default sin.default
slice.Tensor softmax.int split.Tensor split_with_sizes.default sqrt.default squeeze.dim squeeze.dims stack.default
sub.Scalar sub.Tensor sum.dim_IntList sym_size.int t.default tanh.default to.dtype to.dtype_layout transpose.int
type_as.default unflatten.int unsqueeze.default view.default where.ScalarOther where.ScalarSelf where.self zeros.default
zeros_like.default
"""
ATEN = frozenset(_ATEN.split())
"""Operators of torch that a stored graph may call: those that captures of models have, which check their arguments themselves."""

CHANGING = frozenset(
    {
        torch.ops.aten.add_.Tensor,
        torch.ops.aten.mul_.Tensor,
        torch.ops.aten.relu_.default,
        torch.ops.aten.dropout_.default,
    }
)
"""Those that write to their first argument."""

_SCALAR = ("add", "sub", "mul", "floordiv", "mod", "truediv", "neg", "eq", "ne", "lt", "le", "gt", "ge", "getitem")
SCALAR = {f"operator.{name}": getattr(operator, name) for name in _SCALAR} | {
    f"torch.{name}": getattr(torch, name) for name in ("sym_max", "sym_min", "sym_float", "sym_int", "sym_not")
}
"""Functions of sizes."""

NAMES_OF_SCALAR = {function: name for name, function in SCALAR.items()}

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    + (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}
_FORMATS = {"contiguous_format": torch.contiguous_format, "preserve_format": torch.preserve_format}
_FORMATS |= {"channels_last": torch.channels_last}
_LAYOUTS = {"strided": torch.strided}
TAGGED: dict[str, dict[str, Any]] = {"dtype": _DTYPES, "memory_format": _FORMATS, "layout": _LAYOUTS}
KIND_OF = {torch.dtype: "dtype", torch.memory_format: "memory_format", torch.layout: "layout"}


_IN_CONDITIONS = frozenset(
    {"+", "*", "//", "%", "<", "<=", ">", ">=", "==", "!=", "and", "or", "max", "min", "abs", "not"}
)
"""Sums and products alone: a power of a power would be a number without end."""


class Unstorable(Exception):
    """Why a graph cannot be stored, or what was stored is no graph."""


_AXES = 8
_TENSORS = 256


def size_number(tensor: int, axis: int) -> int:
    """How a condition calls the size of an axis of one of the call's tensors."""
    return tensor * _AXES + axis


def graph_from_json(entry: Any, output: Any) -> Captured:
    """The captured graph that an entry describes; what it says of its values is not checked yet.

    Args:
        output: structure of its results, as the module gave them.

    Raises:
        Unstorable: the entry is of another form, or names what a graph may not hold.
    """
    try:
        return _graph_from_json(entry, output)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError, RecursionError, RuntimeError) as error:
        raise Unstorable(f"{type(error).__name__}: {error}") from error


def _graph_from_json(entry: Any, output: Any) -> Captured:
    image = entry["image"]
    assumed = entry["assumed"]
    _require(image is None or (_is_sizes(image) and len(image) == 2), "image")
    _require(type(entry["rounded"]) is bool, "rounded")
    _require(type(assumed) is list and len(assumed) <= MAX_NODES and all(map(_is_condition, assumed)), "assumed")
    constants = {f"stored_constant_{k}": _tensor(c) for k, c in enumerate(entry["constants"][:MAX_NODES])}
    graph = fx.Graph()
    nodes: list[fx.Node] = []
    _require(type(entry["nodes"]) is list and 1 < len(entry["nodes"]) <= MAX_NODES, "nodes")
    for item in entry["nodes"][:-1]:
        nodes.append(_node(graph, item, nodes, constants))
    kind, results = entry["nodes"][-1]
    _require(kind == "output" and type(results) is list, "output")
    found = tuple(_argument(result, nodes) for result in results)
    _require(all(isinstance(result, fx.Node) for result in found), "output")
    graph.output(found)
    return Captured(
        graph,
        output,
        constants,
        image=None if image is None else tuple(image),
        rounded=entry["rounded"],
        assumed=[_text(condition).removeprefix("(").removesuffix(")") for condition in assumed],
        guard=_guard(assumed) if assumed else None,
    )


def _node(graph: fx.Graph, item: Any, nodes: list[fx.Node], constants: dict[str, Any]) -> fx.Node:
    kind, *rest = item
    if kind == "input":
        (val,) = rest
        node = graph.placeholder(f"tensors_{sum(n.op == 'placeholder' for n in nodes)}")
    elif kind == "tensor":
        name, val = rest
        _require(type(name) is str and _NAME.fullmatch(name) is not None, "the name of a tensor")
        node = graph.get_attr(name)
    elif kind == "constant":
        number, val = rest
        _require(type(number) is int and f"stored_constant_{number}" in constants, "the number of a constant")
        node = graph.get_attr(f"stored_constant_{number}")
    else:
        _require(kind == "call", "the kind of a node")
        name, args, kwargs, val = rest
        target = target_of(name)
        _require(target is not None and type(args) is list and type(kwargs) is dict, "a call")
        assert target is not None
        given = {str(key): _argument(value, nodes) for key, value in kwargs.items()}
        node = graph.call_function(target, tuple(_argument(value, nodes) for value in args), given)
    node.meta["val"] = _known(val)
    return node


def target_of(name: Any) -> Any:
    """The operator of this name that a stored graph may call; None for any other."""
    if type(name) is not str:
        return None
    if name in SCALAR:
        return SCALAR[name]
    package, _, rest = name.partition(".")
    if package == "aten" and rest in ATEN:
        packet, _, overload = rest.partition(".")
        return getattr(getattr(torch.ops.aten, packet), overload)
    if package == "optimum_int8" and rest.removesuffix(".default") in REGISTRY:
        return REGISTRY[rest.removesuffix(".default")].overload
    return None


def _argument(value: Any, nodes: list[fx.Node], depth: int = 0) -> Any:
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is str:
        _require(len(value) <= 64, "a text")
        return value
    if type(value) is int:
        _require(abs(value) <= _MAX_INTEGER or value == _END, "a number")
        return value
    if type(value) is list:
        _require(depth < _DEEPEST and len(value) <= MAX_NODES, "a list")
        return [_argument(item, nodes, depth + 1) for item in value]
    ((kind, name),) = value.items()
    if kind == "node":
        _require(type(name) is int and 0 <= name < len(nodes), "the number of a node")
        return nodes[name]
    if kind == "float":
        _require(name in ("inf", "-inf", "nan"), "a number")
        return float(name)
    if kind == "device":
        _require(name == "cpu", "a device")
        return torch.device("cpu")
    return TAGGED[kind][name]


def _known(val: Any) -> Any:
    if val is None or type(val) in (bool, int):
        return val
    if type(val) is list:
        return tuple(_known(item) for item in val)
    shape = val["shape"]
    _require(type(shape) is list and len(shape) <= _AXES and all(map(_is_size, shape)), "a shape")
    return Shaped(tuple(shape), _DTYPES[val["dtype"]])


def _tensor(entry: Any) -> Tensor:
    data = bytes.fromhex(entry["bytes"])
    dtype = _DTYPES[entry["dtype"]]
    _require(len(data) <= MAX_CONSTANT_BYTES and _is_sizes(entry["shape"]), "a constant")
    _require(math.prod(entry["shape"]) * dtype.itemsize == len(data), "a constant")
    if not data:
        return torch.empty(entry["shape"], dtype=dtype)
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return (raw != 0 if dtype is torch.bool else raw.view(dtype)).view(entry["shape"]).clone()


def _is_sizes(values: Any) -> bool:
    return type(values) is list and len(values) <= _AXES and all(type(v) is int and 0 <= v < 1 << 31 for v in values)


def _is_size(size: Any) -> bool:
    if type(size) is int:
        return 0 <= size < 1 << 40
    return type(size) is str and _SYMBOLIC.fullmatch(size) is not None


def _is_condition(value: Any) -> bool:
    return is_expression(value, _TENSORS * _AXES) and _uses_only(value)


def _uses_only(value: Any) -> bool:
    if type(value) is not list or value[0] == SIZE:
        return True
    return value[0] in _IN_CONDITIONS and all(map(_uses_only, value[1:]))


def _text(condition: Any) -> str:
    """The inverse of `_condition`: what torch.export writes, made of a condition that was checked."""
    if type(condition) is not list:
        return repr(condition)
    name, *operands = condition
    if name == SIZE:
        return f"tensors[{operands[0] // _AXES}].size()[{operands[0] % _AXES}]"
    parts = [_text(operand) for operand in operands]
    if name in ("max", "min", "abs"):
        return f"{name}({', '.join(parts)})"
    return f"(not {parts[0]})" if name == "not" else f"({f' {name} '.join(parts)})"


def _guard(conditions: list[Any]) -> Callable[[Sequence[Tensor]], bool]:
    return lambda tensors: all(_holds(condition, tensors) for condition in conditions)


def _holds(condition: Any, tensors: Sequence[Tensor]) -> bool:
    try:
        sizes: Any = _SizesOf(tensors)
        return bool(value_of(condition, sizes))
    except (ArithmeticError, ValueError, TypeError, IndexError):
        return False


class _SizesOf:
    """Sizes of tensors by `size_number`."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, number: int) -> int:
        return self._tensors[number // _AXES].shape[number % _AXES]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise Unstorable(f"{what} is of no form that is known")
