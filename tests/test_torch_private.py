"""Names that torch keeps to itself stand in one file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOME = Path("optimum_int8/torch_private.py")
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "optimum_int8").rglob("*.py"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def dotted(node: ast.expr) -> tuple[str, ...]:
    """Names of `a.b.c`; nothing for other expressions."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return (*before, node.attr)
    return ()


def private_names(source: str) -> Iterator[str]:
    """Modules, functions and classes of torch with private names that `source` imports or reads, and patches made with `mock`.

    Operators (`torch.ops.aten._softmax`) are named by their library; attributes of objects are no names of torch.
    """
    known: dict[str, tuple[str, ...]] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            for alias, name in zip(node.names, names, strict=True):
                known[alias.asname or name[0]] = name if alias.asname else name[:1]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [(*node.module.split("."), alias.name) for alias in node.names]
            known.update({alias.asname or alias.name: name for alias, name in zip(node.names, names, strict=True)})
        for name in names:
            if "mock" in name or (name[0] == "torch" and any(map(is_private, name))):
                yield ".".join(name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (chain := dotted(node)):
            name = (*known.get(chain[0], ()), *chain[1:])
            if name[:1] == ("torch",) and name[1:2] != ("ops",) and is_private(node.attr):
                yield ".".join(name)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_private_names_of_torch_stand_in_one_file(file: Path) -> None:
    found = set(private_names((ROOT / file).read_text(encoding="utf-8")))
    if file == HOME:
        assert found and not any("mock" in name for name in found)
    else:
        assert found == set(), f"take it from {HOME}"


@pytest.mark.parametrize(
    "source",
    [
        "import torch._dynamo",
        "import torch._dynamo.config as c",
        "from torch._subclasses import FakeTensorMode",
        "from torch.fx import _symbolic_trace",
        "from torch.utils._pytree import tree_map",
        "import torch\nwith torch._C.DisableTorchFunction(): ...",
        "from torch import fx as f\nf._symbolic_trace.x = 1",
        "from torch.export import _trace as trace",
        "def f():\n    import torch\n    return torch.fx.graph._Namespace",
        "from unittest import mock",
        "import unittest.mock as m",
        "from unittest.mock import patch",
    ],
)
def test_the_rule_finds_private_names(source: str) -> None:
    assert list(private_names(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.nn.Module.__init__(x)",
        "import torch\ntorch.ops.aten._softmax.default",
        "from ..torch_private import tree_map\nself._torch = tree_map",
        "x._version + module._parameters",
        "from .own import _private\n_private.torch",
    ],
)
def test_the_rule_lets_other_names_pass(source: str) -> None:
    assert not list(private_names(source))
