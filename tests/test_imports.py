"""The direction of imports, cycles, sizes and guides: the tree stays readable from the bottom up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "optimum_int8"

RANK_0 = {
    "_version",
    "errors",
    "loss",
    "numerics",
    "config",
    "precision",
    "torch_private",
    "lazy",
    "heap",
}

RANKS = {
    **dict.fromkeys(RANK_0, 0),
    **dict.fromkeys(["kernels", "operators"], 1),
    **dict.fromkeys(["cache", "observers", "nn", "sites", "fx"], 2),
    **dict.fromkeys(["lowering", "passes"], 3),
    **dict.fromkeys(
        ["deploy", "batches", "calibration", "memory", "prepare", "quantization", "remedies", "restore", "tuning"], 4
    ),
    **dict.fromkeys(["evaluation", "hub", "recipe", "torch_ao", "training"], 5),
    "quantizers": 6,
    "warm": 6,
    **dict.fromkeys(["cli", "__main__"], 7),
}
"""Rank of each direct child of the package. A file imports its own child and lower ranks."""

ORDERED = (
    ("_version", "lazy", "torch_private", "errors", "loss", "precision", "config", "numerics"),
    ("kernels", "operators"),
    ("observers", "nn", "sites"),
    ("observers", "nn", "fx"),
    ("cache", "fx"),
    ("lowering", "passes"),
    ("batches", "calibration", "remedies", "prepare", "restore", "quantization", "tuning"),
    ("hub", "training"),
    ("warm", "quantizers"),
)
"""What of equal rank may import in one direction, a later one from an earlier one: capturing a graph has to know what an INT8
module is, and a trainer saves what it trained. Rank 4 is the road of a model: its data, its ranges, what regains accuracy,
all of that gathered, the INT8 structure, the whole road, the search for the best of them. All others of equal rank know
nothing of each other."""

ORDERED_INSIDE = {"quantizers": ("steps", "base", "tasks")}
"""What a child with folders of its own consists of: a later part may import an earlier one."""

MAX_FILE_LINES = 330
MAX_FUNCTION_LINES = 60
"""The house limits, 300 and 50 lines, with the slack that their "about" means. Docstrings do not count in functions."""

MAX_GUIDE_LINES = 60
MODULES_WITH_GUIDE = 3

FILES = sorted(path.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("*.py"))


def modules(folder: Path) -> set[str]:
    """Python files of a folder that its guide has to name."""
    return {file.name for file in FILES if file.parent == folder} - {"__init__.py", "__main__.py"}


GUIDED = [
    f for f in sorted({file.parent for file in FILES}) if len(modules(f)) >= MODULES_WITH_GUIDE and f != Path(PACKAGE)
]


def imported_modules(source: str, file: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, dotted name) of every import of ours in `source`, wherever it stands, type-checking blocks included."""
    package = file.with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == PACKAGE:
                yield node.lineno, name


def upward_imports(source: str, file: Path) -> list[str]:
    """What in `source`, standing at `file`, breaks the rule; the package's own `__init__.py` may import all."""
    own = file.with_suffix("").parts[1]
    if own == "__init__":
        return []
    if own not in RANKS:
        return [f"{file}: {own!r} has no rank in tests/test_imports.py"]
    wrong = []
    for line, name in imported_modules(source, file):
        child = name[1] if len(name) > 1 else "__init__"
        if child == own:
            continue
        rank = RANKS.get(child, len(RANKS))
        if rank > RANKS[own] or (rank == RANKS[own] and not may_import_sibling(own, child)):
            wrong.append(
                f"{file}:{line}: rank {RANKS[own]} imports {'.'.join(name)}, rank {RANKS.get(child, 'unknown')}"
            )
    return wrong


def inner_upward_imports(source: str, file: Path) -> list[str]:
    """What in `source`, standing at `file`, breaks `ORDERED_INSIDE`."""
    _, child, *rest = file.with_suffix("").parts
    order = ORDERED_INSIDE.get(child, ())
    if not rest or rest[0] not in order:
        return []
    later = order[order.index(rest[0]) + 1 :]
    found = ((line, name) for line, name in imported_modules(source, file) if name[1:2] == (child,))
    return [f"{file}:{line}: imports {'.'.join(name)}" for line, name in found if name[2:3] and name[2] in later]


def may_import_sibling(own: str, child: str) -> bool:
    """Whether `own` may import `child`, which has the same rank."""
    for names in ORDERED:
        if {own, child} <= set(names):
            return names.index(child) < names.index(own)
    return False


def imports_among(sources: dict[Path, str]) -> dict[Path, set[Path]]:
    """File to the files it imports, wherever the import stands; `__init__.py` gathers a folder and is left out."""
    by_name = {file.with_suffix("").parts: file for file in sources}
    found: dict[Path, set[Path]] = {}
    for file, source in sources.items():
        names = [name for _, name in imported_modules(source, file)]
        targets = [by_name.get(name) or by_name.get(name[:-1]) for name in names]
        found[file] = {target for target in targets if target is not None and target != file}
    return found


def cycles(imports: dict[Path, set[Path]]) -> set[frozenset[Path]]:
    """Groups of files that import each other, directly or through others of the group."""
    reached: dict[Path, set[Path]] = {}
    for file in imports:
        seen: set[Path] = set()
        waiting = list(imports[file])
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += imports.get(other, ())
        reached[file] = seen
    return {
        frozenset(other for other in reached[file] if file in reached[other])
        for file in imports
        if file in reached[file]
    }


def shadows(source: str, files: set[str]) -> set[str]:
    """Names that the `__init__.py` with this `source` binds, or promises in `__all__`, to something else than the file, or folder, of
    that name."""
    bound: set[str] = set()
    modules: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom):
            (modules if node.module is None else bound).update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            bound |= names
            if "__all__" in names:
                bound |= {item.value for item in ast.walk(node) if isinstance(item, ast.Constant)} - modules
    return bound & files


def long_functions(source: str, file: Path) -> list[str]:
    """The functions of `source` that are over the limit."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if lines > MAX_FUNCTION_LINES:
                wrong.append(f"{file}:{node.lineno}: {node.name} has {lines} lines; split it by idea")
    return wrong


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_upward_import(file: Path) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert upward_imports(source, file) == []
    assert inner_upward_imports(source, file) == []


def test_no_cycle() -> None:
    found = cycles(imports_among({f: (ROOT / f).read_text(encoding="utf-8") for f in FILES if f.name != "__init__.py"}))
    named = {frozenset(str(file.relative_to(PACKAGE)) for file in cycle) for cycle in found}
    assert named == set(), "files that import each other: move what both need into a third one"


@pytest.mark.parametrize("init", [file for file in FILES if file.name == "__init__.py"], ids=str)
def test_nothing_shadows_a_file(init: Path) -> None:
    files = {file.stem for file in FILES if file.parent == init.parent}
    files |= {file.parent.name for file in FILES if file.name == "__init__.py" and file.parent.parent == init.parent}
    found = shadows((ROOT / init).read_text(encoding="utf-8"), files - {"__init__"})
    assert found == set(), "a function and a file of one name: rename the file by what it holds"


@pytest.mark.parametrize("folder", GUIDED, ids=str)
def test_a_folder_has_a_short_guide_to_each_file(folder: Path) -> None:
    guide = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    assert guide.count("\n") <= MAX_GUIDE_LINES
    missing = [name for name in sorted(modules(folder)) if f"`{name}`" not in guide]
    assert not missing, f"{folder}/README.md is the guide to the folder: give {missing} a line in it"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_small(file: Path) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    lines = source.count("\n")
    assert lines <= MAX_FILE_LINES, f"{file} has {lines} lines; split it by idea"
    assert long_functions(source, file) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("optimum_int8/config.py", "from .kernels import info"),
        ("optimum_int8/numerics/linears.py", "import optimum_int8.kernels"),
        ("optimum_int8/nn/linear.py", "from ..passes.pipeline import run"),
        ("optimum_int8/nn/linear.py", "from .. import hub"),
        ("optimum_int8/nn/linear.py", "from ..fx import capture"),
        ("optimum_int8/nn/linear.py", "from ..sites import Sites"),
        ("optimum_int8/fx/structure.py", "from ..sites.collect import Sites"),
        ("optimum_int8/sites/linear.py", "from ..fx import capture"),
        ("optimum_int8/observers/base.py", "from ..nn import Int8Linear"),
        ("optimum_int8/hub/card.py", "from ..evaluation.report import EvaluationReport"),
        ("optimum_int8/restore.py", "from .hub.plugin import attach"),
        ("optimum_int8/hub/save.py", "from ..training import Int8Trainer"),
        ("optimum_int8/fx/captured.py", "def f():\n    from optimum_int8.cli import main"),
        ("optimum_int8/quantization.py", "from . import quantizers"),
        ("optimum_int8/calibration.py", "from .prepare import prepare"),
        ("optimum_int8/restore.py", "from .quantization import quantize"),
        ("optimum_int8/remedies/flow.py", "from ..tuning import tune"),
        ("optimum_int8/tuning/search.py", "from ..deploy import save"),
        ("optimum_int8/errors.py", "from .config import Int8Config"),
        ("optimum_int8/hub/plugin.py", "from optimum_int8 import OptimizedModel"),
        ("optimum_int8/hub/plugin.py", "from ..unheard_of import x"),
        ("optimum_int8/unheard_of.py", ""),
    ],
)
def test_the_rule_finds_upward_imports(file: str, source: str) -> None:
    assert upward_imports(source, Path(file))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "optimum_int8/nn/linear.py",
            "from ..numerics import quantize_affine\nfrom .packing import pack\nimport torch",
        ),
        ("optimum_int8/nn/__init__.py", "from .linear import Int8Linear\nfrom .. import kernels"),
        ("optimum_int8/config.py", "from .errors import ConfigError"),
        ("optimum_int8/tuning.py", "from .quantization import quantize"),
        ("optimum_int8/quantization.py", "from .restore import activate"),
        ("optimum_int8/fx/structure.py", "from ..nn import Int8Module\nfrom ..observers import Observer"),
        ("optimum_int8/sites/linear.py", "from ..nn import Int8Linear\nfrom ..observers import Observer"),
        ("optimum_int8/cli/command_line.py", "from optimum_int8.quantizers import Quantizer"),
        ("optimum_int8/__init__.py", "from .cli import main"),
    ],
)
def test_the_rule_lets_downward_imports_pass(file: str, source: str) -> None:
    assert upward_imports(source, Path(file)) == []


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("steps/task.py", "from ..base import Quantizer", True),
        ("steps/task.py", "def f():\n    from optimum_int8.quantizers.tasks import translation", True),
        ("base.py", "from .tasks.translation import TranslationQuantizer", True),
        ("base.py", "from .steps.task import Task\nfrom ..hub import CardInfo", False),
        ("tasks/translation.py", "from ..base import Quantizer\nfrom ..steps.task import Task", False),
        ("__init__.py", "from .tasks.translation import TranslationQuantizer", False),
    ],
)
def test_the_rule_finds_upward_imports_inside(file: str, source: str, wrong: bool) -> None:
    assert bool(inner_upward_imports(source, Path("optimum_int8/quantizers") / file)) == wrong


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["from .b import x", "from .a import y", ""], {"a.py", "b.py"}),
        (["from . import b", "def f():\n    from .c import x", "import optimum_int8.fx.a"], {"a.py", "b.py", "c.py"}),
        (["from .b import x", "from .c import x", "import torch"], None),
    ],
)
def test_the_rule_finds_cycles(sources: list[str], expected: set[str] | None) -> None:
    folder = Path("optimum_int8/fx")
    found = cycles(imports_among(dict(zip([folder / "a.py", folder / "b.py", folder / "c.py"], sources, strict=True))))
    assert {frozenset(file.name for file in cycle) for cycle in found} == ({frozenset(expected)} if expected else set())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from .load import load, other", {"load"}),
        ("from .reading import load", {"load"}),
        ("from .load import read as save", {"save"}),
        ("def load(): ...", {"load"}),
        ("load = save = None", {"load", "save"}),
        ("__all__ = ['load', 'other']\n__getattr__ = lazy({})", {"load"}),
        ("from . import load\n__all__ = ['load']", set()),
        ("from . import load\nfrom .load import read\nimport save", set()),
    ],
)
def test_the_rule_finds_shadows(source: str, found: set[str]) -> None:
    assert shadows(source, {"load", "save"}) == found


def test_the_rule_finds_long_functions() -> None:
    body = "    x = 1\n" * MAX_FUNCTION_LINES
    assert long_functions(f"def f():\n{body}", Path("f.py"))
    assert not long_functions(
        f'def f():\n    """{"doc" * 9}\n\n    more\n    """\n{body[: -len("    x = 1") - 1]}', Path("f.py")
    )
