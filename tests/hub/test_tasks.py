"""The classes for one task each: written down once."""

from __future__ import annotations

import re
from pathlib import Path

import optimum_int8
from optimum_int8 import OptimizedModel, hub
from optimum_int8.hub import tasks

NAME = re.compile(r"\bOptimizedModelFor\w+")
PACKAGE = Path(optimum_int8.__file__).parent


def test_the_list_names_every_class() -> None:
    defined = {name for name, value in vars(tasks).items() if isinstance(value, type) and value is not OptimizedModel}
    assert set(tasks.__all__) == defined and len(tasks.__all__) == len(defined)


def test_both_packages_have_them_all() -> None:
    for package in (optimum_int8, hub):
        assert set(tasks.__all__) <= set(package.__all__) and set(tasks.__all__) <= set(dir(package))
        assert all(getattr(package, name) is getattr(tasks, name) for name in tasks.__all__)


def test_no_other_file_lists_them() -> None:
    """An error may name one as an example."""
    others = [file for file in PACKAGE.rglob("*.py") if file != Path(tasks.__file__)]
    found = {file: set(NAME.findall(file.read_text("utf-8"))) for file in others}
    assert [file for file, names in found.items() if len(names) > 1] == []
