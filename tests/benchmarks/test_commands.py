"""The entry point: every command has the same parts, answers `--help` without heavy imports, and refuses unknown names."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks
from benchmarks.__main__ import find_command, main
from benchmarks.commands import NAMES, ROOT

FOLDER = Path(benchmarks.__file__).parent
HEAVY = ("torch", "transformers", "optimum_int8", "numpy", "datasets", "rich")


def imported_modules(file: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports, and relative ones with their dots."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_nothing_in_benchmarks_imports_tests() -> None:
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 30
    found = [(file.name, name) for file in files for name in imported_modules(file)]
    assert ("measure.py", "optimum_int8") in found
    assert not [(file, name) for file, name in found if name.split(".")[0] == "tests"]


def test_every_file_is_a_command_and_is_listed() -> None:
    assert {path.stem for path in (FOLDER / "commands").glob("*.py")} == {*NAMES, "__init__"}
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"python -m benchmarks {name}" not in readme] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_are_the_same_in_the_same_order(name: str) -> None:
    tree = ast.parse((FOLDER / "commands" / f"{name}.py").read_text(encoding="utf-8"))
    parts = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    expected = ["add_arguments", "run"]
    assert [part for part in parts if part in expected] == expected
    command = find_command(name)
    assert command.HELP and command.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_every_command_helps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m benchmarks {name} ")
    assert str(find_command(name).__doc__).splitlines()[0] in text


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['benchmarks', '--help']; from benchmarks.__main__ import main\n"
        "try: main()\n"
        f"finally: assert not sys.modules.keys() & set({HEAVY}), sys.modules.keys() & set({HEAVY})\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert [name for name in NAMES if f"\n    {name} " not in answer.stdout.replace("\n", " \n")] == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["report", "--check", "--show"],
        ["tuning"],
        ["training"],
        ["generation", "--rows", "1x8"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generation", "--models", "gpt2,other"], "unknown model other; expected some of llama-135m"),
        (["generation", "--engines", "other"], "unknown engine other; expected some of int8_dynamic"),
        (["generation", "--peers", "/no/such"], "--peers: /no/such: no such folder"),
        (["cards", "other"], "unknown model other; expected some of sst2"),
        (["kernels", "--op", "other"], "unknown operator other; expected some of add"),
        (["kernels", "--isa", "other"], "unknown instruction set other"),
        (["tuning", "--shared", "nowhere", "other"], "unknown subject other; expected some of sst2"),
    ],
)
def test_unknown_names_are_refused_and_the_known_ones_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from optimum_int8.kernels import library

    if arguments[0] == "kernels" and library() is None:
        pytest.skip("without the native library there is nothing to time")
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_the_names_of_the_command_line_are_those_that_are_measured() -> None:
    from benchmarks import cards, training
    from benchmarks.commands import cards as cards_command
    from benchmarks.commands import generation as generation_command
    from benchmarks.commands import training as training_command
    from benchmarks.generation import models as generation_models

    assert tuple(cards.MODELS) == cards_command.MODELS
    assert list(generation_models.BUILDERS) == list(generation_command.MODELS)
    assert (*training.CASES, training.CIFAR10, "cost") == training_command.CASES


def test_training_options_left_out_are_those_of_the_trainer() -> None:
    from benchmarks.training import Options
    from optimum_int8.quantizers.steps.training import DEFAULTS, SETTINGS
    from optimum_int8.training import QatSettings

    options = Options.of(Path(), 10, [1], learning_rate=None, ranges=None, distillation_weight=None)
    assert options.settings == QatSettings(**SETTINGS) and options.learning_rate == DEFAULTS["learning_rate"]
    options = Options.of(Path(), 10, [1], learning_rate=0.0, ranges="moving_average", distillation_weight=0.25)
    assert (options.settings.ranges, options.settings.distillation_weight) == ("moving_average", 0.25)
    assert options.learning_rate == 0.0
