"""What goes over the sites of a model asks their kinds: no file outside `sites/` tells one kind from another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from optimum_int8 import sites
from optimum_int8.sites import KINDS, SiteKind

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "optimum_int8").rglob("*.py")
    if path.relative_to(ROOT).parts[1] != "sites"
)

CONSTANTS = {name for name, value in vars(sites).items() if isinstance(value, str) and value in KINDS}
"""Names of the package that hold the name of a kind: `LINEAR`."""

CLASSES = {cls.__name__ for kind in KINDS.values() for cls in type(kind).__mro__} - {"SiteKind", "object"}
NAMES = {*KINDS, *(op for kind in KINDS.values() for op in kind.recipe.ops)}
SPEAKS_OF_KINDS = {"kind", "kinds", "modules", "int8"}
SPEAKS_OF_OPS = {"op", "ops", "site", "name"}
"""What variables and attributes are called that hold the name of a kind; in `recipe/`, that of an op."""


def identifiers(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }


def strings(node: ast.AST) -> set[str]:
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def tells_kinds_apart(node: ast.AST, names: set[str]) -> bool:
    """Whether an expression or statement depends on which kind something is."""
    if isinstance(node, ast.Call):
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        by_class = function in ("isinstance", "issubclass") and bool(identifiers(node) & CLASSES)
        return by_class or function == "of_kind"
    if isinstance(node, (ast.Compare, ast.Match)):
        named = bool(strings(node) & NAMES) and bool(identifiers(node) & names)
        return named or bool(identifiers(node) & (CONSTANTS | CLASSES))
    if isinstance(node, ast.Subscript):  # a table of cases: {LINEAR: ..., CONV: ...}[kind]
        return isinstance(node.value, ast.Dict) and bool(identifiers(node.value) & CONSTANTS)
    return False


def places(source: str, file: Path = Path("optimum_int8/recipe/match.py")) -> list[int]:
    names = SPEAKS_OF_KINDS | (SPEAKS_OF_OPS if file.parts[1] == "recipe" else set())
    return sorted({node.lineno for node in ast.walk(ast.parse(source)) if tells_kinds_apart(node, names)})  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_kind_is_compared(file: Path) -> None:
    found = places((ROOT / file).read_text(encoding="utf-8"), file)
    assert not found, f"{file}, lines {found}: ask the SiteKind; what differs by kind belongs in its file in sites/"


@pytest.mark.parametrize(
    "source",
    [
        "if kind == LINEAR: pass",
        "if kind in (LINEAR, CONV): pass",
        "if sites.int8[name] != sites.POOL: pass",
        "linears = [n for n, kind in modules.items() if kind == 'linear']",
        "known = modules.get(name) == 'linear'",
        "if seen.site.op == 'attention': pass",
        "if self.name != 'embedding': pass",
        "if isinstance(kind, LinearKind): pass",
        "if type(kind) is PoolKind: pass",
        "names = sites.of_kind(LINEAR)",
        "match kind:\n    case 'linear': pass",
        "inputs = {ATTENTION: 3, SCORES: 2}[kind]",
    ],
)
def test_the_rule_finds_comparisons(source: str) -> None:
    assert places(source)


@pytest.mark.parametrize(
    "source",
    [
        "if kind.needs_ranges: pass",
        "known = {row.name for row in rows if row.kind == sites.int8.get(row.name)}",
        "if isinstance(module, nn.Linear): pass",
        "if remedy == 'attention': pass",
        "found = dict.fromkeys(modules, LINEAR)",
    ],
)
def test_the_rule_lets_questions_pass(source: str) -> None:
    assert not places(source)


def test_the_rule_knows_the_kinds() -> None:
    assert {"LINEAR", "BFLOAT16_ATTENTION"} <= CONSTANTS
    assert {"LinearKind", "CallKind", "CoreKind"} <= CLASSES
    assert {"linear", "conv2d", "matmul"} <= NAMES
    assert all(isinstance(kind, SiteKind) for kind in KINDS.values())
