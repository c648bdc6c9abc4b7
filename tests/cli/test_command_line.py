"""The command line itself: errors in one line, exit codes, JSON files, help without heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from optimum_int8.cli import main
from optimum_int8.cli.command_line import COMMANDS, write_json
from optimum_int8.cli.result import Result
from optimum_int8.errors import CheckpointError, ConfigError


def test_every_command_has_the_same_parts() -> None:
    assert [command.NAME for command in COMMANDS] == [
        "quantize", "evaluate", "sensitivity", "inspect", "benchmark", "compile", "push", "convert-legacy", "env"
    ]  # fmt: skip
    for command in COMMANDS:
        assert command.HELP and callable(command.add_arguments) and callable(command.run)


@pytest.mark.parametrize("command", [command.NAME for command in COMMANDS])
def test_help_and_the_common_arguments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--json FILE", "--threads N", "--debug"))


@pytest.mark.parametrize("arguments", [[], ["unheard-of"], ["env", "--threads", "0"], ["env", "--what"]])
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: optimum-int8" in capsys.readouterr().err


def test_our_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: object) -> Result:
        raise ConfigError("first line\n  second line")

    monkeypatch.setattr(COMMANDS[-1], "run", fail)
    assert main(["env"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: first line second line\n"
    assert captured.out == ""
    with pytest.raises(ConfigError):
        main(["env", "--debug"])


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(COMMANDS[-1], "run", lambda args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["env"])


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(args: object) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS[-1], "run", interrupt)
    assert main(["env"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_json_that_cannot_be_written_stops_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(COMMANDS[-1], "run", lambda args: pytest.fail("the work was started"))
    for path in (tmp_path / "absent" / "x.json", tmp_path):
        assert main(["env", "--json", str(path)]) == 2
        assert "cannot write --json to" in capsys.readouterr().err


def test_write_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.json"
    write_json({"a": 1}, target)
    assert json.loads(target.read_text()) == {"a": 1}

    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_json({"a": 2}, target)
    assert json.loads(target.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_markup_in_texts_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(COMMANDS[-1], "run", lambda args: Result({}, ["in [bold]dir[/bold]"]))
    assert main(["env"]) == 0
    assert "in [bold]dir[/bold]" in capsys.readouterr().out


@pytest.mark.slow
def test_as_a_program() -> None:
    command = [sys.executable, "-m", "optimum_int8.cli", "quantize", "./absent", "--output", "never-made"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: no such folder: './absent'; expected a saved model, or the name of one on the Hub"
    )
    assert not Path("never-made").exists()
