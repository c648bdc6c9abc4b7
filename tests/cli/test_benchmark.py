"""`optimum-int8 benchmark`, on an architecture small enough for a test."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from optimum_int8.cli import main
from optimum_int8.cli.benchmark import shapes
from optimum_int8.evaluation.benchmark import BenchmarkReport, latency_row
from optimum_int8.evaluation.latency import PairedLatency, Quartiles
from tests.quantizers.tiny import make_config

TINY = ["--model-type", "bert", "--hidden", "32", "--layers", "2", "--heads", "2", "--intermediate", "64"]
QUICK = ["--rounds", "2", "--shapes", "1x5,2x9"]


@pytest.mark.slow
def test_by_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "benchmark.json"
    assert main(["benchmark", *TINY, "--vocabulary", "64", *QUICK, "--json", str(result)]) == 0
    values = json.loads(result.read_text())
    assert values["architecture"]["hidden_size"] == 32
    assert [(row["batch"], row["sequence"]) for row in values["rows"]] == [(1, 5), (2, 9)]
    for row in values["rows"]:
        assert list(row["latency_ms"]) == ["fp32", "bf16", "int8_static", "int8_dynamic"]
        for name, milliseconds in row["latency_ms"].items():
            ratio = pytest.approx(row["latency_ms"]["fp32"] / milliseconds)
            assert row["speedup"][name] == (ratio if Quartiles(*row["speedup_quartiles"][name]).is_steady else None)
    text = capsys.readouterr().out
    for part in ("BertModel", "FP32", "BF16", "INT8 static", "INT8 dynamic", "1 x 5", "2 x 9", "random weights"):
        assert part in text


@pytest.mark.slow
def test_by_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_config(architectures=["BertForSequenceClassification"]).save_pretrained(tmp_path)
    for name in (tmp_path, tmp_path / "config.json"):
        assert main(["benchmark", str(name), *QUICK, "--no-bf16", "--approach", "dynamic"]) == 0
        text = capsys.readouterr().out
        assert "BertForSequenceClassification" in text
        assert "BF16" not in text
        assert "INT8 static" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either an architecture"),
        (["bert-base", "--model-type", "bert"], "give either an architecture"),
        (["bert-base", "--hidden", "32"], "go with --model-type"),
        (["--model-type", "no-such-type"], "unknown model type 'no-such-type'"),
        (["nobody/no-such-model"], "no preset (bert-base, "),
        ([*TINY, "--shapes", "1x600"], "a sequence of 600 tokens is asked for; the model takes at most 512"),
        (["--model-type", "bert", "--hidden", "30", "--heads", "7"], "no bert model can be made"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_shapes() -> None:
    assert shapes("1x16,8x128") == [(1, 16), (8, 128)]
    for wrong in ("16", "1x", "0x5", "1x16,"):
        with pytest.raises(argparse.ArgumentTypeError):
            shapes(wrong)


def shown(int8: list[float], load: float | None = 6.2) -> str:
    times = PairedLatency({"fp32": [23.0, 202.0, 330.0], "int8_static": int8}, load=load)
    row = {"batch": 1, "sequence": 16, **latency_row(times)}
    machine = {"cpu": "Some CPU", "isa_used": "avx2", "threads": 2, "cores": 2}
    report = BenchmarkReport({"class": "BertModel", "parameters": 1e6}, [row], machine)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(report.table())
    return " ".join(console.export_text().split())


def test_a_ratio_that_scatters_is_not_printed() -> None:
    text = shown([8.0, 8.0, 8.0])
    assert "25.25x" not in text
    for part in ("8.00 ms", "not measurable", "112.50 to 266.00", "(load average 6.2 on 2 cores)", "time more rounds"):
        assert part in text


def test_a_steady_ratio_is_printed_with_quartiles_and_load() -> None:
    text = shown([2.3, 20.2, 33.0])
    for part in ("202.00 ms", "112.50 to 266.00", "20.20 ms", "10.00x", "load average 6.2 before timing"):
        assert part in text
    assert "not measurable" not in text
    assert "load average" not in shown([2.3, 20.2, 33.0], load=None)
