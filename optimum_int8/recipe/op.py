"""`Op`: one op of a recipe, its form in JSON, and every check of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import ConfigError
from ..sites import recipe_traits
from .watch import ALGORITHMS, DTYPES, Range, choose_qparams

GRANULARITIES = ("per_channel", "per_tensor")


@dataclass
class Op:
    """One op in execution order. Lists of inputs hold one entry for each tensor that can be quantized, in the order of the arguments.

    Args:
        id: place in execution order.
        name: what it computes: `"linear"`, `"conv2d"`, `"embedding"`, `"attention"`, `"matmul"`, `"add"`, `"cat"`, ...
        module: qualified name of the module that it is or will be; None in files of Intel Extension for PyTorch, whose ops are matched
            by name and order.
        algorithm: which of `input_ranges` gives the scales; a key of `ALGORITHMS`.
        inputs_quantized: False leaves the op in FP32.
        outputs_quantized: of a sum or a concatenation: True rounds its result to `output_scales` and `output_zero_points`.
        inputs_flow, outputs_flow: names of tensors; an input with the name of an earlier output is that tensor.
        input_ranges: algorithm to a range of each input, so that another algorithm needs no further calibration.
        owner: of a function in a file of Intel Extension for PyTorch 2.x: the module whose code calls it.
        why_not: the reason for which the op cannot be INT8; empty where it can.
        line: its line in its file, 0 without one; `lines` those of its keys.
    """

    id: int
    name: str
    algorithm: str = "min_max"
    weight_granularity: str = "per_channel"
    input_scales: list[float] = field(default_factory=list)
    input_zero_points: list[int] = field(default_factory=list)
    output_scales: list[float] = field(default_factory=list)
    output_zero_points: list[int] = field(default_factory=list)
    weight_scales: list[list[float]] = field(default_factory=list)
    input_quantized_dtypes: list[str] = field(default_factory=list)
    output_quantized_dtypes: list[str] = field(default_factory=list)
    inputs_quantized: list[bool] = field(default_factory=list)
    outputs_quantized: list[bool] = field(default_factory=list)
    inputs_flow: list[str] = field(default_factory=list)
    outputs_flow: list[str] = field(default_factory=list)
    module: str | None = None
    input_ranges: dict[str, list[Range]] = field(default_factory=dict)
    owner: str | None = None
    why_not: str = ""
    line: int = field(default=0, compare=False)
    lines: dict[str, int] = field(default_factory=dict, compare=False)
    file: str = field(default="", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The op as JSON types."""
        left_out = {"line", "lines", "file"} | ({"why_not"} if not self.why_not else set())
        left_out |= {"owner"} if self.owner is None else set()
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}

    def refuse(self, key: str, found: object, expected: str) -> ConfigError:
        """The error for a value of this op, with its place in the file."""
        where = f"{self.file}, line {self.lines.get(key, self.line)}: " if self.file else ""
        title = f"op {self.id} ({self.name}{f' {self.module!r}' if self.module is not None else ''})"
        return ConfigError(f"{where}{key} of {title} is {json.dumps(found, default=str)}; expected {expected}")

    @property
    def is_quantized(self) -> bool:
        """Whether any of its inputs is, or the result of a sum or a concatenation."""
        return any(self.inputs_quantized) or self.output_quantized

    @property
    def output_quantized(self) -> bool:
        """Whether its result has quantization parameters of its own. Other ops leave that to their readers."""
        return recipe_traits(self.name).rounds_output and any(self.outputs_quantized)

    def check(self) -> None:
        """Raises ConfigError, with the line, at the first value that cannot be one."""
        _require(self, "id", type(self.id) is int, "a whole number")
        _require(self, "name", isinstance(self.name, str), "the name of an op")
        _require(self, "module", self.module is None or isinstance(self.module, str), "a qualified module name")
        _require(self, "owner", self.owner is None or isinstance(self.owner, str), "a qualified module name")
        _require(self, "algorithm", self.algorithm in ALGORITHMS, f"one of {', '.join(ALGORITHMS)}")
        _require(
            self, "weight_granularity", self.weight_granularity in GRANULARITIES, f"one of {', '.join(GRANULARITIES)}"
        )
        for side in ("input", "output"):
            _check_list(self, f"{side}s_quantized", lambda v: isinstance(v, bool), "a list of true and false")
            _check_list(self, f"{side}_quantized_dtypes", lambda v: v in DTYPES, f"a list of {' and '.join(DTYPES)}")
            _check_list(self, f"{side}_scales", _is_scale, "a list of finite numbers above 0")
            _check_list(
                self,
                f"{side}_zero_points",
                lambda v: type(v) is int and 0 <= v <= 255,
                "a list of 0 to 255, 0 for int8",
            )
            _check_list(self, f"{side}s_flow", lambda v: isinstance(v, str), "a list of tensor names")
        _check_list(
            self,
            "weight_scales",
            lambda v: isinstance(v, list) and all(_is_scale(s) for s in v),
            "a list of lists of finite numbers above 0",
        )
        _check_ranges(self)
        count = len(self.inputs_quantized)
        has_qparams = recipe_traits(self.name).has_input_qparams
        for key in ("input_quantized_dtypes", "input_scales", "input_zero_points"):
            if len(getattr(self, key)) != count and any(self.inputs_quantized) and has_qparams:
                raise self.refuse(key, getattr(self, key), f"{count} values, one for each of inputs_quantized")
        for key in ("output_quantized_dtypes", "output_scales", "output_zero_points"):
            if self.output_quantized and len(getattr(self, key)) != 1:
                raise self.refuse(key, getattr(self, key), "one value, as outputs_quantized is true")

    def reconcile(self) -> None:
        """Bring the scales in line with algorithm and dtype after an edit.

        A scale that another algorithm or dtype of `input_ranges` explains is replaced; one that none explains was set by hand and stays.

        Raises:
            ConfigError: the algorithm has no range here.
        """
        for i, dtype in enumerate(self.input_quantized_dtypes[: len(self.input_scales)]):
            current = self.input_scales[i], self.input_zero_points[i]
            known = {
                (algorithm, d): choose_qparams(ranges[i], d)
                for algorithm, ranges in self.input_ranges.items()
                for d in DTYPES
                if i < len(ranges)
            }
            wanted = known.get((self.algorithm, dtype))
            if wanted == current:
                continue
            if current in known.values():
                if wanted is None:
                    raise self.refuse(
                        "algorithm",
                        self.algorithm,
                        f"one that has input_ranges ({', '.join(self.input_ranges)}), or another calibration with this file",
                    )
                self.input_scales[i], self.input_zero_points[i] = wanted
            elif dtype == "int8" and current[1]:  # affine uint8: the dtype was edited
                scale, zero_point = current
                self.input_scales[i], self.input_zero_points[i] = _symmetric(scale, zero_point)
        if self.output_quantized_dtypes[:1] == ["int8"] and any(self.output_zero_points[:1]) and self.output_scales:
            scale, zero_point = _symmetric(self.output_scales[0], self.output_zero_points[0])
            self.output_scales[0] = scale
            self.output_zero_points[0] = zero_point


def _symmetric(scale: float, zero_point: int) -> tuple[float, int]:
    """Symmetric int8 parameters that cover the range of affine uint8 ones."""
    return choose_qparams((-zero_point * scale, (255 - zero_point) * scale), "int8")


def _require(op: Op, key: str, holds: bool, expected: str) -> None:
    if not holds:
        raise op.refuse(key, getattr(op, key), expected)


def _check_list(op: Op, key: str, holds: Any, expected: str) -> None:
    values = getattr(op, key)
    _require(op, key, isinstance(values, list) and all(holds(v) for v in values), expected)


def _is_scale(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _check_ranges(op: Op) -> None:
    def is_range(r: Any) -> bool:
        return (
            isinstance(r, (list, tuple))
            and len(r) == 2
            and all(isinstance(v, (int, float)) and math.isfinite(v) for v in r)
            and r[0] <= 0 <= r[1]
        )

    ranges = op.input_ranges
    holds = isinstance(ranges, dict) and all(
        name in ALGORITHMS and isinstance(rs, list) and all(is_range(r) for r in rs) for name, rs in ranges.items()
    )
    _require(op, "input_ranges", holds, "algorithm: list of [minimum <= 0, maximum >= 0]")
    op.input_ranges = {name: [(float(low), float(high)) for low, high in rs] for name, rs in ranges.items()}


def parse(text: str, file: str) -> list[Op]:
    """The ops of a recipe's text.

    Raises:
        ConfigError: with the line, for what is not such JSON or cannot be a value.
    """
    ops = []
    for value, start, stop in _elements(text, file):
        line = text.count("\n", 0, start) + 1
        if not isinstance(value, dict):
            raise ConfigError(
                f"{file}, line {line}: found a JSON {type(value).__name__}; expected an object, one for each op"
            )
        lines = {
            key: line + text.count("\n", start, start + match.start())
            for key in value
            if (match := re.search(rf'"{re.escape(key)}"\s*:', text[start:stop]))
        }
        known = {f.name for f in fields(Op)} - {"line", "lines", "file"}
        unknown = [key for key in value if key not in known]
        missing = [key for key in ("id", "name") if key not in value]
        if unknown:
            raise ConfigError(
                f"{file}, line {lines.get(unknown[0], line)}: unknown key {unknown[0]!r}; expected {', '.join(sorted(known))}"
            )
        if missing:
            raise ConfigError(f"{file}, line {line}: an op without {missing[0]!r}; every op has an id and a name")
        op = Op(**value, line=line, lines=lines, file=file)
        op.check()
        op.reconcile()
        ops.append(op)
    return ops


def _elements(text: str, file: str) -> Iterator[tuple[Any, int, int]]:
    """The values of a JSON list with the positions where each starts and ends."""
    decoder = json.JSONDecoder(parse_constant=reject_constant)
    blank = re.compile(r"\s*")

    def skip(position: int, expected: str) -> int:
        position = blank.match(text, position).end()  # type: ignore[union-attr]
        if text[position : position + 1] not in tuple(expected):
            line = text.count("\n", 0, position) + 1
            found = text[position : position + 1] or "the end of the file"
            raise ConfigError(
                f"{file}, line {line}: found {found!r}; expected a JSON list of ops ({' or '.join(expected)} here)"
            )
        return position

    position = skip(0, "[") + 1
    if text[blank.match(text, position).end() :].startswith("]"):  # type: ignore[union-attr]
        return
    while True:
        start = blank.match(text, position).end()  # type: ignore[union-attr]
        try:
            value, stop = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", text.count("\n", 0, start) + 1)
            reason = getattr(error, "msg", error)
            raise ConfigError(f"{file}, line {line}: this is not JSON ({reason}); expected a list of ops") from error
        yield value, start, stop
        position = skip(stop, ",]")
        if text[position] == "]":
            break
        position += 1
    if text[position + 1 :].strip():
        raise ConfigError(f"{file}, line {text.count(chr(10), 0, position) + 1}: something follows the list of ops")


def reject_constant(name: str) -> None:
    """Raises ValueError for NaN and the infinities, which Python's JSON has and JSON has not."""
    raise ValueError(f"{name} is no number of JSON")
