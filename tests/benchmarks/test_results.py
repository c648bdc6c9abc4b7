"""JSON and the tables made from it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.render import render, render_file
from benchmarks.results import FOLDER, ResultError, load, save
from benchmarks.tables import make_table

MARKED = "before\n<!-- benchmark one -->\nold\n<!-- /benchmark -->\nafter\n"


def test_a_result_is_saved_rounded_and_loaded(result: dict[str, Any], tmp_path: Path) -> None:
    path = save(result, tmp_path / "deep" / "one.json")
    assert load(path)["rows"][0]["baseline_ms"] == 1.2346


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("schema",), 2, "schema 2"),
        (("kind",), "other", "kind 'other'"),
        (("rows",), None, "'rows' is None"),
        (("machine",), {}, "cpu"),
        (("engines", "openvino_int8", "reason"), "", "openvino_int8"),
        (("engines", "eager_fp32", "status"), "fine", "eager_fp32"),
    ],
)
def test_what_is_no_result_is_refused(
    result: dict[str, Any], path: tuple[str, ...], value: Any, said: str, tmp_path: Path
) -> None:
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ResultError, match=said):
        save(result, tmp_path / "one.json")
    assert not (tmp_path / "one.json").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ResultError, match=r"bad\.json"):
        load(tmp_path / "bad.json")


def test_the_table_has_every_number_its_ratio_and_its_maker(result: dict[str, Any]) -> None:
    text = make_table(result).markdown()
    for line in (
        "batch x tokens | 1x16",
        "optimum_int8 static | 1.23 ms",
        "eager FP32 | 12.3 ms (10.04x)",
        "limit | 0.50 ms",
    ):
        assert f"| {line} |" in text
    assert "| reached by the first | 40% |" in text
    for word in (
        "Test CPU",
        "amx",
        "2 threads",
        "torch 2.13.0",
        "commit abc",
        "7.00 TOPS",
        "16.0 GB/s",
        "[0.1, 0.2, 0.3]",
    ):
        assert word in text
    assert "Left out: OpenVINO INT8 (nncf not installed)." in text
    header, rule, row = text.splitlines()[2:5]
    assert header.count("|") == rule.count("|") == row.count("|")


def test_without_ceilings_the_table_says_why(result: dict[str, Any]) -> None:
    result["limits"], result["rows"][0]["limit"] = {"reason": "no C++ compiler"}, None
    assert "No limit: no C++ compiler." in make_table(result).markdown()


def test_rendering_replaces_what_is_between_the_markers_only(result: dict[str, Any], tmp_path: Path) -> None:
    save(result, tmp_path / "one.json")
    text, count = render(MARKED, tmp_path)
    assert count == 1 and "old" not in text and "12.3 ms" in text
    assert text.startswith("before\n<!-- benchmark one -->\n") and text.endswith("<!-- /benchmark -->\nafter\n")
    assert render(text, tmp_path) == (text, 1)


def test_check_says_out_of_date_and_changes_nothing(result: dict[str, Any], tmp_path: Path) -> None:
    save(result, tmp_path / "one.json")
    readme = tmp_path / "README.md"
    readme.write_text(MARKED)
    assert not render_file(readme, check=True, folder=tmp_path)
    assert readme.read_text() == MARKED
    assert not render_file(readme, folder=tmp_path)
    assert render_file(readme, check=True, folder=tmp_path)


@pytest.mark.parametrize("text", [MARKED.replace("<!-- /benchmark -->", ""), MARKED.replace("one", "absent")])
def test_markers_that_cannot_be_filled_are_errors(text: str, result: dict[str, Any], tmp_path: Path) -> None:
    save(result, tmp_path / "one.json")
    with pytest.raises(ResultError):
        render(text, tmp_path)


def test_report_checks_renders_and_shows(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, stored = tmp_path / "README.md", save(result, tmp_path / "one.json")
    path.write_text(MARKED)
    monkeypatch.setattr("benchmarks.commands.report.render_file", functools.partial(render_file, folder=tmp_path))
    assert main(["report", "--check", str(path)]) == 1
    assert path.read_text() == MARKED
    assert main(["report", str(path)]) == 0
    assert main(["report", "--check", str(path)]) == 0
    assert "12.3 ms" in path.read_text()
    assert main(["report", "--show", str(stored)]) == 0
    assert "10.04x" in capsys.readouterr().out
    assert main(["report", "--show"]) == 2


def test_the_tables_of_the_documents_are_made_from_the_results() -> None:
    assert main(["report", "--check"]) == 0


def test_an_unsteady_ratio_is_shown_as_its_quartiles(result: dict[str, Any]) -> None:
    found = result["rows"][0]["engines"]["eager_fp32"]
    steady = make_table(result).markdown()
    assert "(10.04x)" in steady and "nsteady" not in steady
    found |= {"ratio": 25.24, "ratio_quartiles": [9.0, 41.0]}
    text = make_table(result).markdown()
    assert "| eager FP32 | 12.3 ms (unsteady, 9.00x to 41.00x) |" in text
    assert "25.24" not in text
    assert "Unsteady: the quartiles" in text and "load average at the start [0.1, 0.2, 0.3]" in text


def test_unsteady_ratios_of_generation_ragged_batches_and_scaling(result: dict[str, Any]) -> None:
    loud = {"first_ms": 4.0, "ms": 8.0, "ratio": 25.24, "ratio_quartiles": [0.5, 41.0], "rounds": 5}
    settings = result["settings"]
    generation = {"shape": "1x32", "tokens": 32, "baseline_ms": 4.0, "engines": {"eager_fp32": loud}}
    settings |= {"prompt": 32, "new_tokens": 32}
    text = make_table(result | {"kind": "generation", "rows": [generation]}).markdown()
    assert "(unsteady, 0.50x to 41.00x)" in text and "25.24" not in text and "Unsteady: " in text
    ragged = {"shape": "32x8-128", "tokens": 4, "token_share": 0.5, "engines": {"eager_fp32": loud}}
    text = make_table(result | {"kind": "ragged", "rows": [ragged]}).markdown()
    assert "| unsteady, 50% to 4100% |" in text and "2524%" not in text and "Unsteady: " in text
    settings["modes"] = ["one_thread"]
    engines = {
        "int8_static": {"one_thread": {"sequences_per_s": 250.0}, "gain": {}},
        "eager_fp32": {"one_thread": loud | {"sequences_per_s": 125.0}, "gain": {}},
    }
    text = make_table(result | {"kind": "scaling", "rows": [{"shape": "1x16", "engines": engines}]}).markdown()
    assert "| 250.0/s |" in text
    assert "| 125.0/s (ours unsteady, 0.50x to 41.00x) |" in text and "25.24" not in text and "Unsteady: " in text


def test_a_file_without_markers_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plain.md").write_text("no markers")
    assert main(["report", str(tmp_path / "plain.md")]) == 2
    assert "plain.md" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_valid_and_make_tables(path: Path) -> None:
    assert make_table(load(path)).rows
    assert json.loads(path.read_text())["machine"]["commit"]
