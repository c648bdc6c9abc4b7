"""`python -m benchmarks recurrent` on tiny layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main


def test_every_engine_of_each_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads, file = torch.get_num_threads(), tmp_path / "rows.json"
    try:
        arguments = ["--units", "8", "--length", "3", "--batches", "1,2", "--rounds", "1", "--threads", "1"]
        assert main(["recurrent", *arguments, "--json", str(file)]) == 0
    finally:
        torch.set_num_threads(threads)
    result = json.loads(file.read_text())
    assert [(row["kind"], row["batch"]) for row in result["rows"]] == [("lstm", 1), ("lstm", 2), ("gru", 1), ("gru", 2)]
    for row in result["rows"]:
        assert {"fp32", "dynamic", "static"} <= row.keys()
        assert row["fp32"]["error"] == 0.0 < row["dynamic"]["error"] < 0.05
        assert 0 < row["static"]["least_ms"] <= row["static"]["median_ms"]
    assert "times as fast as fp32" in capsys.readouterr().out
