"""`optimum-int8 sensitivity`, and the options of `quantize` that tune."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimum_int8.cli import main
from tests.quantizers.tiny import make_dataset, make_folder, make_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_folder(folder / "model")
    rows = make_dataset(make_model(), 24)
    text = "".join(f"{s}\t{label}\n" for s, label in zip(rows["sentence"], rows["label"], strict=True))
    (folder / "data.tsv").write_text("sentence\tlabel\n" + text)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_sensitivity(approach: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--dataset", str(inputs / "data.tsv"), "--output", str(tmp_path / "report"), "--approach", approach]
    assert main(["sensitivity", str(inputs / "model"), *arguments, "--json", str(tmp_path / "rows.json")]) == 0
    assert "worst of" in capsys.readouterr().out
    values = json.loads((tmp_path / "rows.json").read_text())
    assert values["config"]["approach"] == approach
    assert all(Path(file).stat().st_size > 1000 for file in values["files"]) and len(values["files"]) == 2
    errors = [site["model_error"] for site in values["sites"]]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0


@pytest.mark.slow
def test_quantize_with_a_budget(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--dataset", str(inputs / "data.tsv"), "--output", str(tmp_path / "int8"), "--approach", "static"]
    limits = ["--accuracy-budget", "0.5", "--max-trials", "3", "--timeout", "60"]
    assert main(["quantize", str(inputs / "model"), *arguments, *limits, "--json", str(tmp_path / "q.json")]) == 0
    assert "The budget of 50.00% is kept" in " ".join(capsys.readouterr().out.split())
    values = json.loads((tmp_path / "q.json").read_text())
    assert values["tuning"]["met"] and values["config"]["max_trials"] == 3 and values["config"]["timeout"] == 60.0


def test_a_budget_needs_data(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output", str(tmp_path / "int8"), "--accuracy-budget", "0.01"]
    assert main(["quantize", str(inputs / "model"), *arguments]) == 2
    assert "--accuracy-budget needs --evaluation-dataset" in capsys.readouterr().err
