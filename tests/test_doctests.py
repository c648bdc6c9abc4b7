"""The examples of docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {path: path.read_text("utf-8") for path in sorted((ROOT / "optimum_int8").rglob("*.py"))}
WITH_EXAMPLES = [str(path.relative_to(ROOT)) for path, text in SOURCES.items() if ">>> " in text]

SKIPPED = {
    "optimum_int8/quantizers/": "a model and a dataset of the user's",
    "optimum_int8/hub/modeling.py": "a checkpoint of the user's",
    "optimum_int8/training/trainer.py": "a model and a dataset of the user's",
}
"""Where examples may be marked `# doctest: +SKIP`, and what they would need."""


def examples(file: str) -> list[doctest.DocTest]:
    """The docstrings of a file that have examples."""
    parts = Path(file).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("file", WITH_EXAMPLES)
def test_examples_run(file: str) -> None:
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    found = examples(file)
    said: list[str] = []
    assert found
    for test in found:
        torch.manual_seed(0)
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("file", WITH_EXAMPLES)
def test_skipped_examples_have_a_reason(file: str) -> None:
    skipped = any(e.options.get(doctest.SKIP) for test in examples(file) for e in test.examples)
    assert not skipped or any(file.startswith(name) for name in SKIPPED)


def test_a_wrong_example_fails() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed == 1
