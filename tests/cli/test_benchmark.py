"""`optimum-int8 benchmark`, on an architecture small enough for a test."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from optimum_int8.cli import main
from optimum_int8.cli.benchmark import shapes
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
            assert row["speedup"][name] == pytest.approx(row["latency_ms"]["fp32"] / milliseconds)
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
