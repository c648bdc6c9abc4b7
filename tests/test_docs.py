"""Guides and documents name what exists. That a guide names all files of its folder is checked with the imports."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "optimum_int8"
FOLDERS = ("benchmarks", "docs", "examples", "model_cards", "optimum_int8", "scripts", "tasks", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))])
FILES = {str(path.relative_to(ROOT)) for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file()}
FILES |= {path.name for path in ROOT.iterdir()}
WORDS_OF_OTHERS = {"CHANGELOG.md"}
"""Documents that also name files of the past."""

_FENCE = re.compile(r"^\s*```.*?^\s*```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_QUOTED = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"[\w.*/-]+\.(py|h|cpp|md)|[\w.*-]+(/[\w.*-]+)*/[\w.*-]+\.\w+|([\w.-]+/)+")


def named_files(text: str) -> set[str]:
    """What stands in backticks and looks like a file, or like a folder with a slash behind it."""
    return {name for name in _QUOTED.findall(_FENCE.sub("", text)) if _FILE.fullmatch(name)}


def exists(name: str, document: Path) -> bool:
    """Whether a file or folder is there: from the document, the package, the tests or the checkout. Outside of guides to folders of the
    package, a name without a path may be anywhere, and that of a folder may be the user's."""
    bases = [document.parent, PACKAGE, ROOT, ROOT / "tests"]
    if any(next(base.glob(name.rstrip("/")), None) is not None for base in bases):
        return True
    if document.name == "README.md" and document.parent.parent == PACKAGE:
        return False
    if name.endswith("/") and name.count("/") == 1:
        return True
    return any(fnmatch(f"/{file}", f"*/{name}*") for file in FILES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = [link for link in _LINK.findall(_FENCE.sub("", document.read_text("utf-8"))) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if path.name not in WORDS_OF_OTHERS],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_named_files_exist(document: Path) -> None:
    assert [name for name in sorted(named_files(document.read_text("utf-8"))) if not exists(name, document)] == []


def test_decisions_are_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    assert {path.name for path in folder.glob("*.md")} - {"README.md"} == set(_LINK.findall(index))


def test_the_rules_find_what_is_missing() -> None:
    guide = PACKAGE / "fx" / "README.md"
    assert named_files("`block.py`, `fx/`, `a.b`, `x | y`, `lib/x.json`\n```\n`no.py`\n```\n") == {
        "block.py",
        "fx/",
        "lib/x.json",
    }
    assert exists("block.py", guide) and exists("csrc/isa/tile_*.h", PACKAGE / "kernels" / "README.md")
    assert not exists("linear.py", guide) and not exists("unheard_of.py", ROOT / "README.md")
    assert exists("tile_avx2.h", ROOT / "docs" / "decisions" / "README.md")
