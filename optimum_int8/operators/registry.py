"""`Operator`: everything about one operator, and the registry that everything else is built from.

A file of this folder defines an operator and its variants by `define`. From the registry come the operators of `torch.ops.optimum_int8`,
their shapes for tracing, what lowering appends to a program, the matrix of tests (operator by instruction set) and the kernel benchmark.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..kernels.native import library
from ..torch_private import OpOverload
from .onnx import without_onnx
from .roles import PER_TENSOR, Form, Quantizing

ROWS = "rows"
"""Domain of programs that compute one row per token."""

IMAGES = "images"
"""Domain of programs that compute images, `[batch, height, width, channels]`."""

INSIDE = "inside"
OUTSIDE = "outside"
EITHER = "either"
APPENDED = "appended"
"""Where the keys and values of an attention core come from: rows of its program, tensors with a length of their own, or both: `past_k` and
`past_v`, and behind them rows `k` and `v` of the tokens."""

MASK = "mask"
"""Name of the argument that is no value of a program but belongs to its call."""


@dataclass(frozen=True)
class Operator:
    """One operator of `torch.ops.optimum_int8`.

    Attributes:
        name: that in `torch.ops.optimum_int8`.
        compute: the result on CPU tensors: by the native library, or by the definition without it.
        definition: the same result in `numerics` alone; every kernel equals it to the bit.
        fake: from arguments, by position or by name, to a result of its shape and dtype. Tensors have a `shape`, a `dtype` and a
            `new_empty` only.
        emit: appends the operator to a program: takes the emission, and the arguments by name but for the mask. None where the operator
            runs outside of programs.
        domains: the programs (`ROWS`, `IMAGES`) that it can be part of.
        values: names of the arguments that are values of a program unless they are constants of no axis; the first one has all leading
            axes of the result.
        columns: those among them of which `emit` takes some columns of a value too (`Rows.column`).
        periodic: those among them that may be the rows of one sequence for all of the batch.
        keys: of an attention core, where its arguments `k` and `v` come from: `INSIDE` the program, `OUTSIDE`, `EITHER` or `APPENDED`; else empty.
        role: what it is to passes, of `roles`; empty where they do not ask.
        per: of a quantization, what a scale belongs to.
        elementwise: whether each value of the result depends on the same place of the values alone, in whatever layout.
        form: the operator that it is a form of, and which.
    """

    name: str
    compute: Callable[..., Any]
    definition: Callable[..., Any]
    fake: Callable[..., Any]
    emit: Callable[..., Any] | None = None
    domains: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    periodic: tuple[str, ...] = ()
    keys: str = ""
    role: str = ""
    per: str = ""
    elementwise: bool = False
    form: Form | None = None

    @property
    def overload(self) -> OpOverload:
        """What a graph calls."""
        return getattr(torch.ops.optimum_int8, self.name).default


REGISTRY: dict[str, Operator] = {}
"""Every operator by name."""

_by_overload: dict[OpOverload, Operator] = {}
_by_form: dict[Form, Operator] = {}

_definitions = torch.library.Library("optimum_int8", "DEF")

Tell = Callable[[OpOverload, Sequence[Any], Mapping[str, Any]], None]
_told: dict[int, Tell] = {}
"""By thread, who is told of its calls."""


@contextlib.contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Within, `tell` gets each call of an operator in this thread; a dispatch mode would get each operator of torch too, and be seen by
    the modules."""
    thread = threading.get_ident()
    _told[thread] = tell
    try:
        yield
    finally:
        del _told[thread]


def _telling(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compute)
    def run(*args: Any, **kwargs: Any) -> Any:
        if _told and (tell := _told.get(threading.get_ident())) is not None:
            tell(REGISTRY[name].overload, args, kwargs)
        return compute(*args, **kwargs)

    return run


def define(
    name: str,
    schema: str,
    *,
    compute: Callable[..., Any],
    definition: Callable[..., Any],
    fake: Callable[..., Any],
    emit: Callable[..., Any] | None = None,
    domains: tuple[str, ...] = (),
    values: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    periodic: tuple[str, ...] = (),
    keys: str = "",
    role: str = "",
    per: str = "",
    elementwise: bool = False,
    form: Form | None = None,
) -> Operator:
    """Register an operator: with torch.library, so that `torch.export` sees each as one opaque node, and here.

    Args:
        schema: arguments and result, as torch.library writes them; the other arguments are `Operator`'s.

    Raises:
        ValueError: the name is taken, `values` or one of its like names an argument that the schema does not have, or `form` is taken, or of an operator that
            is not defined before or has other arguments.
    """
    if name in REGISTRY:
        raise ValueError(f"the operator {name!r} is defined already; expected a new name")
    operator = Operator(
        name, compute, definition, fake, emit, domains, values, columns, periodic, keys, role, per, elementwise, form
    )
    _definitions.define(name + schema)
    _definitions.impl(name, _telling(name, compute), "CPU")
    torch.library.register_fake(f"optimum_int8::{name}", without_onnx(fake), lib=_definitions)
    unknown = {*values, *columns, *periodic} - set(parameters(operator.overload))
    if unknown:
        raise ValueError(f"the operator {name!r} has no argument {sorted(unknown)[0]!r}; its schema is {schema}")
    if form is not None:
        _check_form(operator, form)
        _by_form[form] = operator
    REGISTRY[name] = _by_overload[operator.overload] = operator
    return operator


def _check_form(operator: Operator, form: Form) -> None:
    if form.of not in REGISTRY:
        raise ValueError(f"{operator.name!r} is a form of {form.of!r}; expected an operator that is defined before it")
    if form in _by_form:
        raise ValueError(
            f"{operator.name!r} is {form}, as {_by_form[form].name!r} is; expected one operator of each form"
        )
    if isinstance(form, Quantizing):
        plain = parameters(REGISTRY[form.of].overload)
        more = [name for name in parameters(operator.overload) if name not in plain]
        expected = 2 if form.per == PER_TENSOR else 0
        if len(more) != expected or len(parameters(operator.overload)) != len(plain) + expected:
            raise ValueError(
                f"{operator.name!r} quantizes the result of {form.of!r} per {form.per}: expected its arguments {', '.join(plain)} and "
                f"{expected} more, found {', '.join(parameters(operator.overload))}"
            )


def operator_of(target: Any) -> Operator | None:
    """The operator that a graph calls with `target`; None when it is not one of ours."""
    return _by_overload.get(target) if isinstance(target, OpOverload) else None


def operator_with_form(form: Form) -> Operator | None:
    """The operator of this form, None where there is none: `operator_with_form(Quantizing("linear"))` gives that of `linear_quantized`."""
    return _by_form.get(form)


@functools.cache
def parameters(target: OpOverload) -> Mapping[str, Any]:
    """Names of an operator's arguments, ours or torch's, in the order of its schema, with their defaults (None where there is none)."""
    arguments = target._schema.arguments
    return {a.name: a.default_value if a.has_default_value() else None for a in arguments}


def bind(target: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of a call by the names of the schema, in its order, defaults filled in.

    Raises:
        TypeError: an argument that the operator does not have.
    """
    names = parameters(target)
    found = {**names, **dict(zip(names, args, strict=False)), **(kwargs or {})}
    if len(found) > len(names) or len(args) > len(names):
        raise TypeError(f"{target} takes {', '.join(names)}; found {', '.join(found)} ({len(args)} by position)")
    return found


def native(*tensors: Tensor) -> bool:
    """Whether the native library can compute on these: it is there, and no tensor is empty."""
    return all(x.numel() > 0 for x in tensors) and library() is not None


def as_float(x: Tensor) -> Tensor:
    """In float32, as the kernels read it."""
    return x.to(torch.float32)
