"""For which arguments a `.pt2` holds: their axes, what `torch.export` assumed of sizes, and which sizes of 1 or 0 were seen to agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from ..errors import CheckpointError, DataError
from ..torch_private import FakeTensor
from .expressions import SIZE, Expression, Inexpressible, is_expression, of_sympy, text_of, value_of

_PLAIN = (bool, int, float, str, type(None))
_TRIED_TOGETHER = 4
"""Different sizes up to which each combination of ones is tried; of more, pairs."""

Small = tuple[tuple[int, int], ...]
"""Sizes below 2 in a call: number and value."""


@dataclass
class Sizes:
    """What a file says of its arguments, each entry in their flat order.

    Attributes:
        names: of the arguments.
        axes: of a tensor, an expression for each axis; of another argument, its value in a list of one after the word "value".
        count: how many sizes differ from call to call.
        ranges: smallest and largest value of each; None has no limit.
        conditions: what must hold among them.
        small: combinations of sizes below 2 for which the file gives what the model gives. `torch.export` takes sizes to be at least 2.
    """

    names: list[str]
    axes: list[list[Any]]
    count: int
    ranges: list[Any]
    conditions: list[Expression]
    small: list[Any]

    def to_json(self) -> dict[str, Any]:
        """As an entry of the extra file."""
        return asdict(self)

    @classmethod
    def from_json(cls, file: str, entry: Any) -> Sizes:
        """Read an entry of an extra file.

        Raises:
            CheckpointError: it has another form.
        """
        try:
            sizes = cls(**entry)
            found = sizes._is_sound()
        except (TypeError, ValueError, AttributeError, RecursionError):
            found = False
        if not found:
            raise CheckpointError(f"the sizes that {file} is made for cannot be read; save the model again")
        sizes.small = [tuple((k, size) for k, size in entry) for entry in sizes.small]
        return sizes

    def _is_sound(self) -> bool:
        lists = (self.names, self.axes, self.ranges, self.conditions, self.small)
        if type(self.count) is not int or any(type(item) is not list for item in lists):
            return False
        sized = [axis for axes in self.axes if axes[:1] != ["value"] for axis in axes]
        fixed = [axes for axes in self.axes if axes[:1] == ["value"]]
        return (
            len(self.names) == len(self.axes)
            and len(self.ranges) == self.count
            and all(type(name) is str for name in self.names)
            and all(len(axes) == 2 and type(axes[1]) in _PLAIN for axes in fixed)
            and all(is_expression(expression, self.count) for expression in [*sized, *self.conditions])
            and {axis[1] for axis in sized if _is_size(axis)} == set(range(self.count))
            and all(type(low) is int and type(high) in (int, type(None)) for low, high in self.ranges)
            and all(type(number) is int for entry in self.small for pair in entry for number in pair)
        )

    def find(self, arguments: Sequence[Any]) -> list[int]:
        """The sizes of a call.

        Raises:
            DataError: the arguments differ in kind, rank or a fixed size from those that the file is made for.
        """
        found: list[Any] = [None] * self.count
        for name, axes, argument in zip(self.names, self.axes, arguments, strict=True):
            if axes[:1] == ["value"]:
                if type(argument) is not type(axes[1]) or argument != axes[1]:
                    raise DataError(self._text(arguments, f"{name} = {axes[1]!r}"))
                continue
            if not isinstance(argument, Tensor) or argument.dim() != len(axes):
                raise DataError(self._text(arguments, f"{name} with {len(axes)} axes"))
            for axis, size in zip(axes, argument.shape, strict=True):
                if _is_size(axis) and found[axis[1]] is None:
                    found[axis[1]] = size
        for name, axes, argument in zip(self.names, self.axes, arguments, strict=True):
            for i, axis in enumerate(axes if axes[:1] != ["value"] else ()):
                if not _equals(axis, found, argument.shape[i]):
                    expected = text_of(axis, self._size_names())
                    raise DataError(self._text(arguments, f"{name}.shape[{i}] = {expected}"))
        return found

    def check(self, arguments: Sequence[Any], small: bool = True) -> None:
        """Refuse a call for which the file does not hold.

        Args:
            small: whether combinations of sizes below 2 that were not tried are refused too.

        Raises:
            DataError: with what was found and what the file is made for.
        """
        found = self.find(arguments)
        names = self._size_names()
        for size, (low, high), name in zip(found, self.ranges, names, strict=True):
            if size < low or (high is not None and size > high):
                limits = f"{name} <= {high}" if high is not None and size > high else f"{name} >= {low}"
                raise DataError(self._text(arguments, limits))
        for condition in self.conditions:
            if not _holds(condition, found):
                raise DataError(self._text(arguments, text_of(condition, names)))
        ones = tuple((k, size) for k, size in enumerate(found) if size < 2)
        if small and ones and ones not in self.small:
            listed = " and ".join(f"{names[k]} = {size}" for k, size in ones)
            raise DataError(
                self._text(arguments, f"other sizes than {listed}, where the model computes something else")
            )

    def _size_names(self) -> list[str]:
        names = [""] * self.count
        for name, axes in zip(self.names, self.axes, strict=True):
            for i, axis in enumerate(axes):
                if _is_size(axis) and not names[axis[1]]:
                    names[axis[1]] = f"{name}.shape[{i}]"
        return names

    def _text(self, arguments: Sequence[Any], expected: str) -> str:
        found = ", ".join(
            f"{name} {list(argument.shape) if isinstance(argument, Tensor) else repr(argument)}"
            for name, argument in zip(self.names, arguments, strict=True)
        )
        return (
            f"this .pt2 is made for {expected}, and this call has {found}; "
            "keep to that, or save the model again with this call as its example"
        )


class SizeCheck(nn.Module):
    """The first step of a loaded graph; it remembers the sizes that it let pass last."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self._passed: Any = None

    def forward(self, *arguments: Any) -> None:
        """Check a call's flat arguments.

        Raises:
            DataError: the file is not made for them.
        """
        call = [x.shape if isinstance(x, Tensor) else (type(x), x) for x in arguments]
        if call != self._passed:
            self.sizes.check(arguments)
            self._passed = call


def sizes_of(exported: ExportedProgram) -> Sizes:
    """What a program that was exported a moment ago assumes.

    Raises:
        Inexpressible: a condition has no counterpart in data.
    """
    values = {node.name: node.meta.get("val") for node in exported.graph.find_nodes(op="placeholder")}
    given = [spec.arg for spec in exported.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    shapes = [values[arg.name].shape if isinstance(arg, TensorArgument) else () for arg in given]
    places: dict[Any, int] = {}
    for size in (size for shape in shapes for size in shape):
        if not isinstance(size, int) and size.node.expr.is_Symbol:
            places.setdefault(size.node.expr, len(places))
    names = [arg.name for arg in given]
    axes = [
        [size if isinstance(size, int) else of_sympy(size.node.expr, places) for size in shape]
        if isinstance(arg, TensorArgument)
        else ["value", arg.value]
        for arg, shape in zip(given, shapes, strict=True)
    ]
    if any(entry[:1] == ["value"] and type(entry[1]) not in _PLAIN for entry in axes):
        raise Inexpressible("an argument is no tensor and no plain value")
    ranges = [_range(exported.range_constraints.get(symbol)) for symbol in places]
    conditions = [of_sympy(condition, places) for condition in _conditions(values.values())]
    return Sizes(names, axes, len(places), ranges, conditions, [])


def _range(limits: Any) -> list[int | None]:
    """Of a lower limit of 2 nothing is known: torch writes it for every size."""
    if limits is None:
        return [0, None]
    return [int(limits.lower) if limits.lower > 2 else 0, int(limits.upper) if limits.upper.is_Integer else None]


def _conditions(values: Iterable[Any]) -> Iterator[Any]:
    tensor = next((v for v in values if isinstance(v, FakeTensor)), None)
    environment: Any = tensor.fake_mode.shape_env if tensor is not None else None
    for guard in environment.guards if environment is not None else ():
        condition = environment.replace(guard.expr)
        if condition.free_symbols and not any(s.name.startswith("u") for s in condition.free_symbols):
            yield condition


def combinations(sizes: Sequence[int]) -> list[Small]:
    """Which sizes below 2 to try: each alone, and together those that are equal in a call at `sizes`, such as the batch of all arguments."""
    groups = [[k for k, size in enumerate(sizes) if size == value] for value in dict.fromkeys(sizes)]
    most = len(groups) if len(groups) <= _TRIED_TOGETHER else 2
    found = [tuple((k, ones) for k in range(len(sizes))) for ones in (1, 0)]
    for k in range(len(sizes)):
        found += [((k, 1),), ((k, 0),)]
    for together in range(1, most + 1):
        for chosen in itertools.combinations(groups, together):
            found.append(tuple((k, 1) for k in sorted(itertools.chain(*chosen))))
    found += [tuple((k, 0) for k in group) for group in groups]
    return [small for small in dict.fromkeys(found) if small]


def shrink(sizes: Sizes, arguments: Sequence[Any], small: Small) -> list[Any]:
    """Arguments of a call with these sizes below 2 and its other sizes."""
    found = sizes.find(arguments)
    for k, size in small:
        found[k] = size
    result = []
    for axes, argument in zip(sizes.axes, arguments, strict=True):
        for i, axis in enumerate(axes if isinstance(argument, Tensor) else ()):
            wanted = value_of(axis, found)
            argument = argument.index_select(i, torch.arange(wanted) % max(argument.shape[i], 1))
        result.append(argument)
    return result


def try_small(
    sizes: Sizes, arguments: Sequence[Any], exported: Sequence[Any], agrees: Callable[[list[Any]], bool]
) -> None:
    """Note the sizes below 2 for which the program gives what the model gives.

    Args:
        arguments: of the user's example; `exported`: of the one that was exported, where batch and length differ.
        agrees: compares program and model for flat arguments.
    """
    for small in combinations(sizes.find(exported)):
        try:
            changed = shrink(sizes, arguments, small)
            sizes.check(changed, small=False)
            if agrees(changed):
                sizes.small.append(small)
        except Exception:  # neither need hold for such sizes
            continue


def _is_size(axis: Any) -> bool:
    return type(axis) is list and axis[0] == SIZE


def _holds(condition: Expression, found: Sequence[int]) -> bool:
    try:
        return bool(value_of(condition, found))
    except (ArithmeticError, ValueError, TypeError):
        return False


def _equals(axis: Expression, found: Sequence[int], size: int) -> bool:
    try:
        return bool(value_of(axis, found) == size)
    except (ArithmeticError, ValueError, TypeError):
        return False
