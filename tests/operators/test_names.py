"""An operator is named where it is defined, where a module calls it, and in the pass that makes it; everything else asks for its role."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from optimum_int8.operators import LINEAR, PER_TENSOR, REGISTRY, Quantizing, operator_with_form

PACKAGE = Path(__file__).resolve().parents[2] / "optimum_int8"
MOST_FILES = 3
BY_NAME = {"define", "run_as_program"}


def named_operators(source: str) -> Iterator[str]:
    """Operators that `source` defines, calls or takes as a target: `define("x", ...)`, `ours.x`, `torch.ops.optimum_int8.x`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("ours", "torch.ops.optimum_int8"):
            yield node.attr
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "REGISTRY":
            yield from texts(node.slice)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BY_NAME:
            yield from texts(node.args[0])


def texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


@functools.cache
def files_by_operator() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        if any(text in source for text in ("ours.", "optimum_int8.", "define(", "REGISTRY[", "run_as_program(")):
            for name in named_operators(source):
                found[name].add(str(path.relative_to(PACKAGE)))
    return found


@pytest.mark.parametrize("name", REGISTRY)
def test_few_files_name_an_operator(name: str) -> None:
    files = files_by_operator()[name]
    assert any(file.startswith("operators/") for file in files), f"nothing is seen to define {name!r}: found {files}"
    assert len(files) <= MOST_FILES, (
        f"{name!r} is named in {sorted(files)}; a pass asks for a role or a form (operators/roles.py), a module calls another's function"
    )


def test_every_way_to_name_an_operator_is_seen() -> None:
    source = """
define("one", "(Tensor x) -> Tensor")
is_call(node, ours.two.default)
torch.ops.optimum_int8.three(x)
REGISTRY["four"].overload
run_as_program("five", x)
is_call(node, aten.six.default)
named("seven")
"""
    assert sorted(named_operators(source)) == ["five", "four", "one", "three", "two"]


def test_linears_have_the_form_that_attention_reads() -> None:
    linears = [operator.name for operator in REGISTRY.values() if operator.role == LINEAR]
    assert linears and all(operator_with_form(Quantizing(name, PER_TENSOR)) is not None for name in linears)
